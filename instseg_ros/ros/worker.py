"""The one thread of a node that computes."""

__all__ = ["Worker"]

import threading
from collections.abc import Callable


class Worker:
    """Runs `step` again and again until stopped.

    Args:
        name: thread name.
        ready: notified when there may be work.
        step: does what there is to do and returns the seconds until it wants to be called even without a notification
            (None = no need). It is called without `ready` being held.
        has_work: called with `ready` held; whether `step` should run at once.
        on_error: told of an exception that left `step`; the thread goes on.
    """

    def __init__(
        self,
        name: str,
        ready: threading.Condition,
        step: Callable[[], float | None],
        has_work: Callable[[], bool],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._ready, self._step, self._has_work, self._on_error = ready, step, has_work, on_error
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread is there, if only to end its last step."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 15.0) -> bool:
        """Let the running step end and join the thread; False if it did not end in time."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        if self.running:
            self._thread.join(timeout_s)
        return not self.running

    def _loop(self) -> None:
        wait_s: float | None = 0.0  # the first step looks what is due, from before a stop too
        while True:
            with self._ready:
                if not self._stopping and not self._has_work():
                    self._ready.wait(wait_s)
                if self._stopping:
                    return
            try:
                wait_s = self._step()
            except Exception as error:
                wait_s = 0.1
                self._on_error(error)
