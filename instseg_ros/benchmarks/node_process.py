"""The segmenter node as a process of a benchmark."""

__all__ = ["run_segmenter"]

import os


def run_segmenter(arguments: list[str], log: str) -> None:
    """Be the segmenter node until SIGINT or SIGTERM; to be called in a process of its own.

    Args:
        arguments: what follows --ros-args.
        log: file to which everything that is printed is appended.
    """
    from instseg_ros.ros.segmenter_node import main

    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    raise SystemExit(main(["segmenter_node", "--ros-args", *arguments]))
