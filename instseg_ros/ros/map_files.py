"""`~/save_map`, `~/load_map`, and what a node does with its state file when it starts."""

__all__ = ["MapFiles"]

import time
from collections.abc import Callable
from pathlib import Path

from rclpy.node import Node

from instseg_ros.errors import DataError, InputError
from instseg_ros.persistence import STATE_SUFFIX, State, load_state
from instseg_ros.ros.autosave import Autosave, resume
from instseg_ros.ros.saving import confined_path, save_labelled_map
from instseg_ros.ros.segmenter_worker import SegmenterWorker
from instseg_ros.segmenter import Segmenter
from instseg_ros.srv import LoadMap, SaveMap

BUSY = "the segmenter is busy; try again"


class MapFiles:
    """The services, in one folder only.

    Args:
        node: owner of the services.
        segmenter: read and changed only before the worker runs, by `resume`.
        worker: saves and loads while the node runs.
        autosave: knows the state file.
        save_dir: nothing is written or read elsewhere.
        frame: the frame a map must be in; empty = any.
        on_old_map: told that the map was loaded, and the mapper may have gone on since.
    """

    def __init__(
        self, node: Node, segmenter: Segmenter, worker: SegmenterWorker, autosave: Autosave, save_dir: Path, frame: str,
        on_old_map: Callable[[], None],
    ) -> None:
        self._node, self._segmenter, self._worker, self._autosave = node, segmenter, worker, autosave
        self._save_dir, self._frame, self._on_old_map = save_dir, frame, on_old_map
        node.create_service(SaveMap, "~/save_map", self._save)
        node.create_service(LoadMap, "~/load_map", self._load)

    def resume(self) -> list[str]:
        """Go on from the state file, if there is one; before the worker runs. Returns why files were refused."""
        path = self._autosave.path
        if path is None:
            return []

        def restore(state: State) -> None:
            self._check_frame(state)
            try:
                self._segmenter.restore(state)
            except Exception:
                self._segmenter.reset()
                raise

        state, refused = resume(path, restore)
        for why in refused:
            self._node.get_logger().error(f"a saved state was not used: {why}")
        if state is not None:
            self._loaded(state, path)
            self._worker.resumed(state)
        else:
            self._autosave.resumed = f"nothing: {len(refused)} files refused" if refused else "nothing: there was no file"
        return refused

    def _save(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        try:
            path = confined_path(self._save_dir, request.path)
            counts = self._save_state(path) if path.suffix == STATE_SUFFIX else self._save_labelled(path)
        except (InputError, OSError) as error:
            response.message = str(error)
            return response
        if counts is None:
            response.message = BUSY
            return response
        response.success, response.message = True, str(path)
        response.voxels, response.instances = counts
        return response

    def _save_state(self, path: Path) -> tuple[int, int] | None:
        """Voxels and instances saved; None if the worker is busy."""
        state = self._worker.state()
        if state is None:
            return None
        self._autosave.write(path, state)
        return state.voxels, state.instances

    def _save_labelled(self, path: Path) -> tuple[int, int] | None:
        taken = self._worker.snapshot()
        if taken is None:
            return None
        cloud, instances, coords, frame_id, stamp_ns = taken
        save_labelled_map(path, cloud, instances, coords, self._segmenter.config.voxel_size_m, frame_id, stamp_ns)
        return len(coords), len(instances)

    def _load(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        try:
            path = confined_path(self._save_dir, request.path, (STATE_SUFFIX,))
            state = load_state(path)
            self._check_frame(state)
        except (InputError, DataError) as error:
            response.message = str(error)
            return response
        why_not = self._worker.load(state)
        if why_not is None:
            why_not = "the segmenter is busy; ~/points and the diagnostics will show whether the map was loaded"
        if why_not:
            response.message = why_not
            return response
        self._loaded(state, path)
        response.success, response.message = True, str(path)
        response.voxels, response.instances = state.voxels, state.instances
        return response

    def _check_frame(self, state: State) -> None:
        if self._frame and state.frame_id and state.frame_id != self._frame:
            raise DataError(
                f"the saved map is in frame {state.frame_id!r}, parameter input.frame demands {self._frame!r}: change it, or begin a new map"
            )

    def _loaded(self, state: State, path: Path) -> None:
        if state.voxels:
            self._on_old_map()
        age_s = max(0.0, time.time() - state.saved_ns / 1e9)
        other = "" if state.weights == self._segmenter.weights else "; it was made with other weights: classes are those of the present ones"
        self._autosave.resumed = f"{path}: {state.voxels} voxels, {state.instances} instances, {age_s:.0f} s old{other}"
        self._node.get_logger().info(f"going on from {self._autosave.resumed}")
