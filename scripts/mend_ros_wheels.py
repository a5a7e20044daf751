"""Rewrites the CMake exports of the ROS 2 wheels, which name the Python and numpy of the machine that built them.

Usage: python scripts/mend_ros_wheels.py PYTHON_INCLUDE_FOLDER    (with the environment's Python; a second run changes nothing)
"""

import re
import sys
from pathlib import Path

import numpy

BUILD_NUMPY = re.compile(r"/opt/(?:python|_internal)/[^;\"]*/numpy/_?core/include")
BUILD_PYTHON = re.compile(r"/opt/(?:python|_internal)/[^;\"]*/include/python3\.\d+")


def main() -> int:
    """Mend every export below the environment's share folder; says how many files changed."""
    python_include, numpy_include = sys.argv[1], numpy.get_include()
    changed = 0
    for path in sorted((Path(sys.prefix) / "share").glob("*/cmake/*.cmake")):
        text = path.read_text()
        mended = BUILD_PYTHON.sub(python_include, BUILD_NUMPY.sub(numpy_include, text))
        if mended != text:
            path.write_text(mended)
            changed += 1
    print(f"[instseg] {changed} CMake exports of the ROS 2 wheels now name this machine's Python and numpy")
    return 0


if __name__ == "__main__":
    sys.exit(main())
