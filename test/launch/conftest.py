"""Real launch and real nodes, apart from everything else on the machine and the network; skipped, with the reason, where launch is missing."""

import os

import pytest

# Before the first import of rclpy: one domain for each test process, and nothing leaves this machine.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

NEEDED = {
    "launch_pytest": "launch_pytest is not installed (it comes with a ROS 2 installation; docs/testing.md)",
    "rclpy": "rclpy is not installed (make build, or source a ROS 2)",
    "instseg_ros.msg": "the messages are not built (make build, or colcon build)",
}


def pytest_pycollect_makemodule(module_path, parent):
    return Checked.from_parent(parent, path=module_path)


class Checked(pytest.Module):
    """A test module that is imported only where all it needs is there."""

    def _getobj(self):
        for name, reason in NEEDED.items():
            pytest.importorskip(name, reason=reason)
        return super()._getobj()
