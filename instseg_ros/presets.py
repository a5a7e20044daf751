"""Where presets are: the YAML files of `config/presets`, in the checkout or where ROS installs them."""

__all__ = ["preset_file"]

import os
import sys
from pathlib import Path

from instseg_ros.errors import ConfigError


def preset_file(name: str) -> Path:
    """The YAML file of a preset: `config/presets/NAME.yaml` of the package, or a path.

    Raises:
        ConfigError: there is none; the message lists the presets found.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p] + [sys.prefix]
    folders = [Path(__file__).parent.parent / "config" / "presets"]
    folders += [Path(p) / "share" / "instseg_ros" / "config" / "presets" for p in prefixes]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    found = sorted({f.stem for folder in folders for f in folder.glob("*.yaml")})
    raise ConfigError(f"no preset {name!r}; there is {', '.join(found) or 'none installed'}, or give a .yaml file")

