"""Everything on the topics, byte for byte, into an mcap bag; our own message definitions come with it."""

__all__ = ["BagRecorder", "message_store", "read_messages"]

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from instseg_ros.errors import DataError


def message_store() -> Typestore:
    """Jazzy's message types and those of this package, read from its .msg files.

    Raises:
        DataError: the .msg files are not found.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    found: dict[str, Any] = {}
    for path in sorted(_message_folder().glob("*.msg")):
        found.update(get_types_from_msg(path.read_text(), f"instseg_ros/msg/{path.stem}"))
    store.register(found)
    return store


def _message_folder() -> Path:
    beside = Path(__file__).parent.parent.parent / "msg"  # a checkout
    if (beside / "MapUpdate.msg").is_file():
        return beside
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        return Path(get_package_share_directory("instseg_ros")) / "msg"
    except PackageNotFoundError as error:
        raise DataError(
            "the package's .msg files are not found: run from a checkout, or source the workspace it is built in"
        ) from error


class BagRecorder:
    """An mcap bag that takes serialised messages; a context manager.

    Args:
        path: folder of the bag; one that is there from an earlier run is replaced.
        topics: message type (such as `sensor_msgs/msg/Image`) by topic.
    """

    def __init__(self, path: Path, topics: dict[str, str]) -> None:
        if (path / "metadata.yaml").is_file() or (path.is_dir() and not [p for p in path.iterdir() if p.suffix != ".mcap"]):
            shutil.rmtree(path)  # a bag, or one that was cut off
        if path.exists():
            raise DataError(f"{path} is there and is not a bag: remove it, or choose another --out")
        store = message_store()
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._topics = {topic: self._writer.add_connection(topic, kind, typestore=store) for topic, kind in topics.items()}
        self.count = 0

    def write(self, topic: str, stamp_ns: int, content: bytes) -> None:
        """Add a serialised message (CDR) that was published at `stamp_ns`."""
        self._writer.write(self._topics[topic], stamp_ns, content)
        self.count += 1

    def __enter__(self) -> "BagRecorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()


def read_messages(path: Path, *topics: str) -> Iterator[tuple[str, int, Any]]:
    """Topic, time (ns) and message of what a bag holds on some topics, in order of time."""
    with AnyReader([path], default_typestore=message_store()) as reader:
        wanted = [connection for connection in reader.connections if connection.topic in topics]
        for connection, stamp_ns, content in reader.messages(connections=wanted):
            yield connection.topic, stamp_ns, reader.deserialize(content, connection.msgtype)
