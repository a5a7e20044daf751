"""Many scenes at once: over worker processes of this machine, or on a Ray cluster."""

__all__ = ["run_tasks"]

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from instseg_ros.errors import ConfigError, require

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    run: Callable[[Task], Result], tasks: Sequence[Task], processes: int = 1, ray_address: str | None = None,
) -> Iterator[Result]:
    """Results as they come; one process does them in order, in this process.

    Args:
        run: a function of a module, so that it can be sent to another process.
        tasks: what it is called with; sent along, and so are the results.
        processes: worker processes of this machine.
        ray_address: instead of processes, a Ray cluster: "local" starts one on this machine, "auto" joins the running one, or its
            address. Every node needs this package, and sees folders of data and cache under the same path.

    Raises:
        MissingDependencyError: a cluster is asked for and Ray is not installed.
        ConfigError: no cluster answers, or fewer than one process is asked for.
    """
    if processes < 1:
        raise ConfigError(f"{processes} processes: at least 1 is needed")
    if ray_address is not None:
        return _run_on_ray(run, tasks, ray_address)
    return map(run, tasks) if processes == 1 else _run_in_processes(run, tasks, processes)


def _run_in_processes(run: Callable[[Task], Result], tasks: Sequence[Task], processes: int) -> Iterator[Result]:
    # forked children would inherit the state of torch's thread pools
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(processes, len(tasks))), mp_context=context) as pool:
        for future in as_completed([pool.submit(run, task) for task in tasks]):
            yield future.result()


def _run_on_ray(run: Callable[[Task], Result], tasks: Sequence[Task], address: str) -> Iterator[Result]:
    ray = require("ray", "run scenes on a Ray cluster", "pip install ray, or leave --ray out and use --jobs")
    mine = not ray.is_initialized()
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(f"no Ray cluster at {address!r} ({error}): start one with `ray start --head`, or use --ray local") from error
    try:
        remote = ray.remote(_call)
        waiting = [remote.remote(run, task) for task in tasks]
        while waiting:
            done, waiting = ray.wait(waiting)
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Exception) else error) from None
    finally:
        if mine:
            ray.shutdown()


def _call(run: Callable[[Task], Result], task: Task) -> Result:
    """A plain function, which Ray asks for; `run` may be anything that can be called."""
    return run(task)
