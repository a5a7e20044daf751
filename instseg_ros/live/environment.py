"""Whether rclpy and the built messages can be imported, and the checkout's own environment where they cannot yet."""

__all__ = ["ensure_ros", "isolate"]

import importlib
import os
import secrets
import shutil
import sys
from pathlib import Path

from instseg_ros.errors import MissingDependencyError

ROOT = Path(__file__).parent.parent.parent
GUARD = "INSTSEG_REEXECUTED"


def _missing() -> str:
    """Why the nodes cannot run in this process; empty if they can."""
    try:
        for module in ("rclpy", "instseg_ros.msg", "instseg_ros.srv"):
            importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return ""


def ensure_ros(what: str) -> None:
    """Make sure that rclpy and our messages can be imported, which `what` needs.

    In a checkout that was built (`make build`) but whose environment is not active, this process is replaced by the
    same command inside scripts/env.sh.

    Raises:
        MissingDependencyError: they are nowhere to be found.
    """
    why = _missing()
    if not why:
        return
    script, bash = ROOT / "scripts" / "env.sh", shutil.which("bash")
    if bash and script.is_file() and (ROOT / "install").is_dir() and not os.environ.get(GUARD):
        command = [sys.executable, "-m", "instseg_ros.cli", *sys.argv[1:]]
        environment = {**os.environ, GUARD: "1"}
        os.execve(bash, [bash, "-c", '. "$1" && shift && exec "$@"', "instseg", str(script), *command], environment)
    raise MissingDependencyError(
        f"{what} runs on real ROS 2 and the package's messages, and they cannot be imported: run `make build` "
        f"in the checkout, or source a ROS 2 workspace in which instseg_ros is built  ({why})"
    )


def isolate(log_folder: Path) -> int:
    """Put this process and its children into a ROS domain of their own on this machine; call before rclpy is initialised.

    Returns:
        The domain, 1 to 99.
    """
    domain = 1 + secrets.randbelow(99)
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.pop("ROS_LOCALHOST_ONLY", None)  # it would overrule the line above
    os.environ["ROS_LOG_DIR"] = str(log_folder)
    return domain
