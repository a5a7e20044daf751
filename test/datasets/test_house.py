"""Loading a house file and finding its free floor, on a small house made here."""

from pathlib import Path

import numpy as np
import pytest

from instseg_ros.datasets.free_floor import free_floor
from instseg_ros.datasets.house import load_house
from instseg_ros.datasets.shapes import ShapeBuilder
from instseg_ros.errors import DataError
from instseg_ros.labels import IGNORE, class_index


def house_arrays() -> dict[str, np.ndarray]:
    """A 4 x 3 m floor, a wall at x = 4, a table of 1 x 1 m in the middle, a vase without a class on it."""
    b = ShapeBuilder()
    counts = []
    for low, high in (((0, 0, -0.1), (4, 3, 0)), ((4, 0, 0), (4.1, 3, 2.5)), ((1.5, 1, 0), (2.5, 2, 0.7)),
            ((1.9, 1.4, 0.7), (2.1, 1.6, 1.0))):
        b.slab(low, high, (100, 150, 200))
        counts.append(12)
    vertices, faces, colors = b.raw()
    return {
        "vertices": vertices.astype(np.float32), "faces": faces.astype(np.int32), "corner_rgb": np.repeat(colors[:, None], 3,
            axis=1),
        "face_instance": np.repeat(np.arange(4), counts).astype(np.int16), "instance_name": np.array(["Floor", "Wall", "Table",
            "Vase"]),
        "model": np.array(["F", "W", "T", "V"]), "benchmark_class": np.array(["floor", "wall", "table", ""]),
    }


def write(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(folder / "house.npz", **arrays)  # type: ignore[arg-type]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    write(tmp_path, house_arrays())
    return tmp_path


def test_house_as_file_or_folder(house: Path) -> None:
    room = load_house(house)
    assert [i.class_index for i in room.mesh.instances] == [1, 0, class_index("table"), IGNORE]
    assert [i.name for i in room.mesh.instances] == ["Floor", "Wall", "Table", "Vase"]
    assert (room.mesh.face_colors == (100, 150, 200)).all() and room.mesh.faces.shape == (48, 3)
    assert np.allclose(room.floor_polygon.max(axis=0), (4, 3))
    assert np.array_equal(load_house(house / "house.npz").mesh.vertices, room.mesh.vertices)


def test_free_floor_leaves_out_table_wall_and_outside(house: Path) -> None:
    free = free_floor(load_house(house).mesh, cell_m=0.1, clearance_m=0.25)
    assert free.is_free(np.array([[0.5, 0.5], [3.4, 2.5]])).all()
    assert not free.is_free(np.array([[2.0, 1.5], [1.3, 1.5], [3.95, 1.0], [5.0, 1.0], [-1.0, 0.0], [1e6, 0.0]])).any()
    assert free.centers_m().shape == (free.free.sum(), 2) and free.is_free(free.centers_m()).all()
    area = free.free.sum() * 0.01
    blocked = 1.5 * 1.5 - (4 - np.pi) * 0.25**2 + 3 * 0.25
    assert area == pytest.approx(12 - blocked, abs=1.0)


def test_heights_decide_what_is_in_the_way(house: Path) -> None:
    mesh = load_house(house).mesh
    assert not free_floor(mesh, low_m=0.1).is_free(np.array([[2.0, 1.1]]))[0]
    assert free_floor(mesh, low_m=1.2, high_m=1.6).is_free(np.array([[2.0, 1.1]]))[0]


def test_house_that_lacks_something(tmp_path: Path) -> None:
    arrays = house_arrays()
    del arrays["corner_rgb"]
    write(tmp_path, arrays)
    with pytest.raises(DataError, match="corner_rgb"):
        load_house(tmp_path)


def test_house_missing_damaged_or_without_floor(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="house.npz"):
        load_house(tmp_path)
    (tmp_path / "house.npz").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot read a house"):
        load_house(tmp_path)
    arrays = {**house_arrays(), "benchmark_class": np.array(["", "wall", "table", ""])}
    write(tmp_path, arrays)
    with pytest.raises(DataError, match="floor"):
        load_house(tmp_path)
