"""Read the scans of a public data set and write them as labelled voxel scenes (docs/datasets.md)."""

__all__ = ["add_arguments", "run"]

import argparse
import time
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    what = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    scannet = what.add_parser("scannet", help="ScanNet v2: the folder with scans/, or one sceneXXXX_YY")
    scannet.add_argument(
        "--labels", type=Path, help="scannetv2-labels.combined.tsv (default: looked for beside the scans, else the labels.ply of each scan)",
    )
    scannet.add_argument("--no-align", action="store_true", help="do not turn scans by their axisAlignment")
    s3dis = what.add_parser("s3dis", help="S3DIS: Stanford3dDataset_v1.2_Aligned_Version, one Area_k, or one room")
    s3dis.add_argument("--held-out", type=int, default=5, metavar="AREA", help="area for validation, 0 = none (default: %(default)s)")
    scenenn = what.add_parser("scenenn", help="SceneNN: the folder with ID/ID.ply and ID/ID.xml, or one ID.ply")
    scenenn.add_argument("--up", default="y", help="axis upwards where no floor is labelled: x, y, z, -x, -y, -z (default: %(default)s)")
    nyuv2 = what.add_parser("nyuv2", help="NYU Depth V2: nyu_depth_v2_labeled.mat (needs h5py)")
    nyuv2.add_argument("--mapping", type=Path, help="classMapping40.mat: the 40 classes of the 894 names")
    nyuv2.add_argument("--splits", type=Path, help="splits.mat: which frames train and test")
    for sub in (scannet, s3dis, scenenn, nyuv2):
        sub.add_argument("source", type=Path, help="the data set as it was unpacked")
        sub.add_argument("--out", type=Path, required=True, help="folder to write into")
        sub.add_argument("--voxel-size", type=float, default=0.05, help="voxel size, m (default: %(default)s)")
        sub.add_argument("--split", default="train", help="split of scans of which nothing else says it (default: %(default)s)")
        sub.add_argument(
            "--list", action="append", default=[], metavar="SPLIT=FILE", help="scans of a split, one name a line; others are left out",
        )
        sub.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
        sub.add_argument("--limit", type=int, default=0, help="at most so many scans; 0 (default) = all")
        sub.add_argument("--keep-going", action="store_true", help="leave out scans that cannot be read, and name them at the end")


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was written, left out and damaged; status 1 if scans were left out."""
    from instseg_ros.datasets.import_scans import ConvertOptions, convert_scans, find_tasks, read_lists

    options = ConvertOptions(
        args.voxel_size, getattr(args, "labels", None), not getattr(args, "no_align", False), getattr(args, "held_out", 5),
        getattr(args, "up", "y"), getattr(args, "mapping", None), getattr(args, "splits", None),
    )
    tasks = find_tasks(args.dataset, args.source, options, args.split, read_lists(args.list))[: args.limit or None]
    start = time.monotonic()
    results = convert_scans(args.out, tasks, args.jobs, args.keep_going)
    done = [r for r in results if "error" not in r]
    splits = {split: sum(r["split"] == split for r in done) for split in ("train", "validation", "test")}
    print(
        f"{', '.join(f'{n} {split}' for split, n in splits.items() if n) or 'no'} scenes in {args.out}: {time.monotonic() - start:.0f} s; "
        f"{sum(r['points'] for r in done)} points, {sum(r['voxels'] for r in done)} voxels, {sum(r['instances'] for r in done)} instances"
    )
    for result in done:
        for file, line, text in result["damaged_lines"]:
            print(f"  left out: line {line} of {file}, which is damaged: {text}")
    for result in results:
        if "error" in result:
            print(f"  not read: {result['name']}: {result['error']}")
    return 1 if len(done) < len(results) else 0
