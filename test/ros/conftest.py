"""Real rclpy and real messages, apart from everything else on the machine and the network."""

import os
import tempfile

import pytest

# Before the first import of rclpy: one domain for each test process, and nothing leaves this machine.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="instseg_ros_log_"))

try:
    import instseg_ros.msg  # noqa: F401
    import rclpy
    import rclpy.signals

    MISSING = ""
except ImportError as error:
    MISSING = f"rclpy or the built messages are missing (make build, or source a workspace): {error}"


class Unavailable(pytest.Module):
    """A test module that cannot be imported here."""

    def collect(self):
        pytest.skip(MISSING, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return Unavailable.from_parent(parent, path=module_path) if MISSING else None


@pytest.fixture(scope="session")
def ros_context():
    # Else rclpy takes SIGTERM for itself: a run that is told to end would go on, every test failing for want of a context.
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    yield
    rclpy.try_shutdown()


@pytest.fixture
def bench(ros_context):
    from ros_bench import Bench

    with Bench() as bench:
        yield bench
