"""What makes `pip install -e .` work without ROS: the Python package, its command and its CPU kernels."""

import os
from glob import glob

from setuptools import Extension, find_packages, setup

march = os.environ.get("INSTSEG_MARCH", "native")
kernels = Extension(
    "instseg_ros.sparse._kernels",
    sources=["instseg_ros/sparse/kernels.cpp"],
    language="c++",
    extra_compile_args=["-O3", "-std=c++17", "-pthread", *([f"-march={march}"] if march else [])],
    extra_link_args=["-pthread"],
)

setup(
    name="instseg_ros",
    version="0.1.0",
    description="Live 3D instance segmentation of the maps robots build",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["instseg_ros", "instseg_ros.*"]),
    package_data={"instseg_ros": ["py.typed", "weights/*.safetensors"], "instseg_ros.sparse": ["kernels.cpp"]},
    data_files=[
        ("share/instseg_ros/config", [*glob("config/*.yaml"), "config/instseg.rviz", "config/foxglove.json"]),
        ("share/instseg_ros/config/presets", glob("config/presets/*.yaml")),
    ],
    ext_modules=[kernels],
    entry_points={"console_scripts": ["instseg = instseg_ros.cli:main"]},
    install_requires=[
        "numpy",
        "scipy",
        "torch>=2.2",
        "open3d-cpu>=0.19; platform_machine == 'x86_64' and sys_platform == 'linux'",
        "open3d>=0.18; platform_machine != 'x86_64' or sys_platform != 'linux'",
        "hdbscan>=0.8.40",
        "threadpoolctl",
        "safetensors",
        "pyyaml",
        "tqdm",
        "pillow",
        "matplotlib",
        "rosbags>=0.10",
    ],
    extras_require={
        "cuda12": ["cupy-cuda12x", "triton>=3.2"],
        "cuda13": ["cupy-cuda13x", "triton>=3.2"],
        "evaluation": ["trackeval"],
        "rerun": ["rerun-sdk>=0.23"],
        "train": ["tensorboard"],
        "datasets": ["h5py"],
        "distributed": ["accelerate>=1.0", "tensorboard"],
        "dev": ["pytest<8.4", "hypothesis", "ruff", "mypy", "tensorboard", "accelerate>=1.0", "types-PyYAML", "types-tqdm"],
    },
)
