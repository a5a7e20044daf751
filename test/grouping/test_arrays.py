"""Array modules: the same functions on any of them, equal to the compiled ones, and equal on NumPy and CuPy."""

import importlib.util
from types import ModuleType

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from instseg_ros.config import GroupingConfig
from instseg_ros.errors import ConfigError, MissingDependencyError
from instseg_ros.grouping.arrays import array_module, smallest, squared_distances, to_host
from instseg_ros.grouping.grouper import Grouper
from instseg_ros.grouping.mean_shift import mean_shift
from instseg_ros.grouping.weighted_hdbscan import core_distances, spanning_tree, weighted_hdbscan
from instseg_ros.sparse import kernels


def items_and_weights(seed: int, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-3, 3, (4, 5))
    return centers[rng.integers(4, size=count)] + rng.normal(0, 0.2, (count, 5)), rng.integers(1, 9, count)


@pytest.fixture(scope="module")
def cupy() -> ModuleType:
    try:
        return array_module("cuda")
    except (MissingDependencyError, ConfigError) as reason:
        pytest.skip(f"CuPy does not run here: {reason}")


def test_distances_and_smallest() -> None:
    a, _ = items_and_weights(0, 40)
    b, _ = items_and_weights(1, 30)
    squares = squared_distances(np, a, b)
    np.testing.assert_allclose(squares, ((a[:, None] - b) ** 2).sum(axis=2), atol=1e-12)
    for count in (1, 7, 30):
        columns, values = smallest(np, squares, count)
        assert np.array_equal(values, np.sort(squares, axis=1)[:, :count])
        assert np.array_equal(np.take_along_axis(squares, columns, axis=1), values)


def test_the_module_without_cdist_gives_the_same_distances() -> None:
    other = ModuleType("other")
    other.zeros = np.zeros  # type: ignore[attr-defined]
    a, _ = items_and_weights(0, 40)
    np.testing.assert_allclose(squared_distances(other, a, a[:7]), cdist(a, a[:7], "sqeuclidean"), rtol=1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_the_spanning_tree_equals_the_compiled_one(seed: int) -> None:
    items, weights = items_and_weights(seed)
    squares = squared_distances(np, items, items)
    core = core_distances(np, squares, weights, 20)
    assert np.array_equal(spanning_tree(np, squares, core, 0.05), kernels.spanning_tree(squares, core, 0.05))


class OnDevice(np.ndarray):
    """An array that refuses to meet a plain one, as CuPy's do: what is computed with it stays with it until `get`."""

    def get(self) -> np.ndarray:
        return self.view(np.ndarray)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        refuse_host(inputs)
        plain = {"out": tuple(o.get() for o in out)} if out else {}
        return lifted(getattr(ufunc, method)(*lowered(inputs), **plain, **lowered(kwargs)))

    def __array_function__(self, function, types, args, kwargs):
        refuse_host((args, kwargs))
        return lifted(function(*lowered(args), **lowered(kwargs)))

    def __getitem__(self, index):
        refuse_host(index)
        return lifted(self.get()[lowered(index)])

    def __setitem__(self, index, value):
        refuse_host((index, value))
        self.get()[lowered(index)] = lowered(value)


def refuse_host(value) -> None:
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ():
        refuse_host(one)
    if type(value) is np.ndarray:
        raise TypeError("an array of the host among those of the device")


def lowered(value):
    if isinstance(value, (tuple, list)):
        return type(value)(lowered(one) for one in value)
    if isinstance(value, dict):
        return {name: lowered(one) for name, one in value.items()}
    return value.get() if isinstance(value, OnDevice) else value


def lifted(value):
    if isinstance(value, tuple):
        return tuple(lifted(one) for one in value)
    return np.asarray(value).view(OnDevice) if isinstance(value, (np.ndarray, np.generic)) else value


class DeviceModule(ModuleType):
    """NumPy's functions on such arrays; only `asarray` takes those of the host."""

    def __getattr__(self, name: str):
        def call(*args, **kwargs):
            if name != "asarray":
                refuse_host((args, kwargs))
            return lifted(getattr(np, name)(*lowered(args), **lowered(kwargs)))

        return call


@pytest.mark.parametrize("seed", range(3))
def test_the_work_stays_on_the_device_and_gives_the_same(seed: int) -> None:
    device = DeviceModule("device")
    items, weights = items_and_weights(seed)
    with pytest.raises(TypeError, match="of the host"):
        device.asarray(items) - items
    for a, b in zip(mean_shift(items, weights, 1.0, device), mean_shift(items, weights, 1.0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    on_device = weighted_hdbscan(items, weights, 30, 30, 0.3, 0.1, xp=device)
    for a, b in zip(on_device, weighted_hdbscan(items, weights, 30, 30, 0.3, 0.1), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_a_device_that_is_not_there_is_named() -> None:
    if importlib.util.find_spec("cupy") is None:
        with pytest.raises(MissingDependencyError, match="grouping.device = cuda"):
            Grouper(GroupingConfig(device="cuda"))
    assert array_module("cpu") is np


@pytest.mark.parametrize("seed", range(5))
def test_cupy_equals_numpy(cupy: ModuleType, seed: int) -> None:
    items, weights = items_and_weights(seed)
    on_device = cupy.asarray(items)
    np.testing.assert_allclose(to_host(squared_distances(cupy, on_device, on_device)), squared_distances(np, items, items), atol=1e-12)
    for a, b in zip(mean_shift(items, weights, 1.0, cupy), mean_shift(items, weights, 1.0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    for a, b in zip(weighted_hdbscan(items, weights, 30, 30, 0.3, 0.1, xp=cupy), weighted_hdbscan(items, weights, 30, 30, 0.3, 0.1), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
