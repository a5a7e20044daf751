"""Validation: the whole pipeline on finished maps, judged by instance average precision."""

__all__ = ["validate"]

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from instseg_ros.config import GroupingConfig, SegmenterConfig
from instseg_ros.datasets.scenes import VoxelScene, load_scene
from instseg_ros.evaluation.ground_truth import GroundTruth, supply_labels
from instseg_ros.evaluation.instances import Predictions, Scan, average_precision, default_min_region
from instseg_ros.labels import IGNORE
from instseg_ros.mapping.update import MapUpdate
from instseg_ros.models.network import InstanceNet
from instseg_ros.segmenter import LabelledCloud, Segmenter
from instseg_ros.training.processes import Processes


def segment_scene(segmenter: Segmenter, scene: VoxelScene) -> LabelledCloud:
    """Segment a finished map; rows are the scene's voxels in their order."""
    segmenter.reset()
    weights = np.ones(len(scene.coords), np.float32)
    segmenter.process(MapUpdate(scene.coords, scene.colors, weights, scene.voxel_size_m, full=True))
    return segmenter.cloud(segmenter.map.lookup(scene.coords))


def validate(net: InstanceNet, files: Sequence[Path], grouping: GroupingConfig | None = None, processes: Processes | None = None) -> dict[str, float]:
    """`ap`, `ap50`, `ap25` of the instances and `accuracy` of the voxel classes over scene files.

    Args:
        net: a network in evaluation mode.
        grouping: settings of the grouper; default: those of the segmenter.
        processes: that share the scenes; all have to call this, and all get the figures. Default: this one alone.
    """
    config = SegmenterConfig(voxel_size_m=net.config.voxel_size_m, device=next(net.parameters()).device.type, grouping=grouping or GroupingConfig())
    segmenter = Segmenter(config, net)
    rank, count = (processes.rank, processes.count) if processes else (0, 1)
    mine = []
    for file in files[rank::count]:
        scene = load_scene(file)
        supply_labels(segmenter, GroundTruth.of(scene.coords, scene.class_index, scene.instance, scene.voxel_size_m))
        cloud = segment_scene(segmenter, scene)
        found = list(segmenter.tracker.instances.values())
        ids, classes = np.array([i.id for i in found]), np.array([i.class_index for i in found])
        predictions = Predictions.from_map(cloud.instance, ids, classes, np.array([i.score for i in found]))
        voxel_class = segmenter.runner.prediction.semantic[segmenter.map.lookup(scene.coords)].argmax(1)
        labelled = scene.class_index != IGNORE
        right = int((voxel_class == scene.class_index)[labelled].sum())
        mine.append((Scan(scene.class_index, scene.instance, predictions), right, int(labelled.sum())))
    shares = processes.gather(mine) if processes else [mine]
    judged = [shares[i % count][i // count] for i in range(len(files))]
    result = average_precision([scan for scan, _, _ in judged], min_region=default_min_region(net.config.voxel_size_m))
    accuracy = sum(right for _, right, _ in judged) / max(sum(known for _, _, known in judged), 1)
    return {"ap": result.ap, "ap50": result.ap50, "ap25": result.ap25, "accuracy": accuracy}
