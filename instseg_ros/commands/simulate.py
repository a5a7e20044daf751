"""Compose furnished rooms (or take a house), walk a depth camera through, and fuse what it sees into labelled scenes."""

__all__ = ["add_arguments", "run"]

import argparse
import os
import time
from pathlib import Path

import numpy as np

from instseg_ros.labels import CLASS_NAMES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    rooms = what.add_parser("rooms", help="labelled voxel scenes of furnished rooms: OUT/SPLIT/room_0000.npz and on")
    rooms.add_argument("--count", type=int, default=24, help="number of rooms (default: %(default)s)")
    rooms.add_argument("--first", type=int, default=0, help="number of the first room, to add to those made before")
    rooms.add_argument(
        "--split", choices=("train", "validation", "test"), default="train", help="whose furniture (default: %(default)s)",
    )
    rooms.add_argument("--seed", type=int, default=1, help="the same seed gives the same rooms (default: %(default)s)")
    rooms.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    rooms.add_argument(
        "--furniture", default="auto",
        help="auto: the catalogues of Debian's sweethome3d-furniture where they are installed, together with procedural models; "
        "procedural: only those; or the path of one catalogue, such as BlendSwap-CC-0.sh3f (default: %(default)s)",
    )
    house = what.add_parser("house", help="one scene of a whole house: OUT/house.npz")
    house.add_argument("--house", type=Path, required=True, help="house.npz or its folder")
    house.add_argument("--seed", type=int, default=0, help="of the walk (default: %(default)s)")
    toy = what.add_parser(
        "toy", help="toy scenes of cuboids on a plane (MTML sec. 4.1): OUT/train, OUT/validation and OUT/test (docs/datasets.md)",
    )
    toy.add_argument("--out", type=Path, required=True, help="folder to write into")
    toy.add_argument("--seed", type=int, default=1, help="the same seed gives the same scenes (default: %(default)s)")
    toy.add_argument("--voxel-size", type=float, default=0.05, help="voxel size, m (default: %(default)s)")
    toy.add_argument("--count", type=int, default=900, help="training scenes (default: %(default)s)")
    toy.add_argument("--validation", type=int, default=50, metavar="COUNT", help="validation scenes (default: %(default)s)")
    toy.add_argument("--test", type=int, default=100, metavar="COUNT", help="test scenes (default: %(default)s)")
    for sub in (rooms, house):
        sub.add_argument("--out", type=Path, required=True, help="folder to write into")
        sub.add_argument("--frames", type=int, default=0, help="frames of a walk; 0 (default) = by the size of the floor")
        sub.add_argument("--voxel-size", type=float, default=0.05, help="voxel size, m (default: %(default)s)")
        sub.add_argument(
            "--partial", type=float, nargs="*", default=(), metavar="SHARE",
            help="also save the map after these shares of the walk, so that a network learns objects that are half seen "
            "(for example 0.35 0.7)",
        )
        sub.add_argument("--clean", action="store_true", help="no sensor and pose noise")
        sub.add_argument("--bag", action="store_true", help="also write each walk as an mcap bag")
        sub.add_argument("--sequence", action="store_true", help="also write each walk as images with a sequence.json")


def run(args: argparse.Namespace) -> int:
    """Simulate, and say what was written."""
    if args.what == "toy":
        return _toy(args)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the worker processes: one core each
    from instseg_ros.datasets.simulate import SimulationOptions, simulate_house, simulate_rooms

    options = SimulationOptions(
        getattr(args, "furniture", "auto"), args.frames, not args.clean, tuple(args.partial), args.voxel_size, args.bag,
        args.sequence,
    )
    start = time.monotonic()
    if args.what == "rooms":
        results = simulate_rooms(args.out, args.count, args.split, args.seed, args.jobs, options, first=args.first)
    else:
        results = [simulate_house(args.house, args.out, args.seed, options)]
    seconds = time.monotonic() - start
    voxels = np.array([r["voxels"] for r in results])
    print(
        f"{sum(r['scenes'] for r in results)} scenes of {len(results)} walks in {args.out}: {seconds:.0f} s, "
        f"{seconds / len(results):.1f} s each; {np.mean([r['frames'] for r in results]):.0f} frames, "
        f"{voxels.mean():.0f} voxels ({voxels.min()} to {voxels.max()}) and "
        f"{np.mean([r['instances'] for r in results]):.0f} instances each"
    )
    totals: dict[int, int] = {}
    for result in results:
        for index, number in result["classes"].items():
            totals[index] = totals.get(index, 0) + number
    for index, number in sorted(totals.items(), key=lambda item: -item[1]):
        name = CLASS_NAMES[index] if index < len(CLASS_NAMES) else "not labelled"
        print(f"  {name:15} {100 * number / voxels.sum():5.2f} %")
    return 0


def _toy(args: argparse.Namespace) -> int:
    from instseg_ros.datasets.toy import simulate_toy

    start = time.monotonic()
    counts = {"train": args.count, "validation": args.validation, "test": args.test}
    sizes = simulate_toy(args.out, args.seed, counts, args.voxel_size)
    voxels = np.array([count for split in sizes.values() for count in split])
    if not len(voxels):
        print("no scenes were asked for")
        return 0
    print(
        f"{', '.join(f'{len(s)} {split}' for split, s in sizes.items())} scenes in {args.out}: {time.monotonic() - start:.0f} s; "
        f"{voxels.mean():.0f} voxels each ({voxels.min()} to {voxels.max()})"
    )
    return 0
