"""What can be set, as dataclasses: the one source of YAML files, ROS parameters and command-line flags (settings.py reads and checks them)."""

__all__ = [
    "AugmentationConfig", "BagPlayerConfig", "FolderConfig", "FusionConfig", "FusionNodeConfig", "GroupingConfig", "ImagesConfig",
    "InputConfig", "LossConfig", "ModelConfig", "OutputConfig", "PoseConfig", "SegmenterConfig",
    "SegmenterNodeConfig", "StateConfig", "TrackingConfig", "TrainingConfig",
]

from dataclasses import dataclass

from instseg_ros.labels import BACKGROUND, CLASS_NAMES
from instseg_ros.settings import group, setting


@dataclass
class ModelConfig:
    """What the network is; stored in the weights file, not set by users of a trained model."""

    voxel_size_m: float = setting(0.05, "voxel size the network is trained for, m", ge=0.001, le=1.0, fixed=True)
    backbone: str = setting(
        "unet", "U-Net, the larger residual U-Net (after MinkUNet34), or the dilated network of MTML (after SSCNet)",
        choices=("unet", "residual_unet", "dilated"), fixed=True,
    )
    channels: tuple[int, ...] = setting((32, 48, 64, 96), "channels per level, finest first", ge=4, le=1024, fixed=True)
    blocks: int = setting(1, "unet: residual blocks per level and direction; other backbones: times their own number", ge=1, le=8, fixed=True)
    encoder_blocks: tuple[int, ...] = setting(
        (2, 3, 4, 6), "residual_unet: blocks per level of the encoder, finest first, the last for all further levels", ge=1, le=32, fixed=True,
    )
    dilations: tuple[int, ...] = setting((1, 1, 3, 3), "dilated: dilation of each group of blocks at the coarsest level", ge=1, le=16, fixed=True)
    heads: tuple[str, ...] = setting(
        ("semantic", "embedding", "offset"), "what the network says of a voxel", fixed=True,
        choices=("semantic", "embedding", "offset", "direction", "covariance", "occupancy"),
    )
    embedding_dim: int = setting(8, "dimensions of the instance embedding", ge=1, le=64, fixed=True)
    position_scale: float = setting(
        0.0, "1/m: the embedding starts from where the voxel is times this, in its first three dimensions, and the network says how far from "
        "there it is: two equal objects side by side differ by it. SSEN's network reads coordinates instead", ge=0.0, le=100.0, fixed=True,
    )
    refine_layers: int = setting(0, "layers of attention over the nearest voxels that refine the embedding (Liang 2019)", ge=0, le=3, fixed=True)
    refine_neighbors: int = setting(8, "nearest voxels such a layer looks at", ge=1, le=64, fixed=True)
    label_input: bool = setting(False, "read the true class of each voxel in place of its colour (MTML's toy scenes and pretraining)", fixed=True)
    height_feature: bool = setting(True, "read the height above the floor beside the colours", fixed=True)


    @property
    def position_step(self) -> float:
        """`position_scale` per voxel."""
        return self.voxel_size_m * self.position_scale


@dataclass
class GroupingConfig:
    """How voxels become instance segments."""

    method: str = setting(
        "hdbscan", "grouper that splits a connected component into instances",
        choices=("hdbscan", "mean_shift", "connected_components", "proposals", "occupancy_graph"), fixed=True,
    )
    device: str = setting("cpu", "where mean shift and HDBSCAN's distances are computed; cuda needs CuPy", choices=("cpu", "cuda"), fixed=True)
    bridge_voxels: int = setting(2, "foreground voxels up to this far apart (Chebyshev, voxels) are one component", ge=1, le=4)
    min_voxels: int = setting(20, "smaller segments are not instances", ge=1, le=1_000_000)
    min_cluster_voxels: int = setting(30, "HDBSCAN min_cluster_size, in voxels", ge=2, le=1_000_000)
    embedding_scale: float = setting(1.0, "weight of the embedding distance", ge=0.0, le=100.0)
    offset_scale: float = setting(5.0, "weight of the distance between predicted centres, 1/m; HDBSCAN and mean shift", ge=0.0, le=100.0)
    position_scale: float = setting(
        0.0, "weight of the distance between the voxels themselves, 1/m; HDBSCAN and mean shift. Two equal things side by "
        "side differ by this, by the offset, or by an embedding that starts from positions (model.position_scale)", ge=0.0, le=100.0,
    )
    semantic_scale: float = setting(
        0.0, "weight of the distance between class probabilities; all but connected components. None of the papers has it", ge=0.0, le=100.0,
    )
    cell_size: float = setting(0.3, "edge of the cells that condense a component, in scaled feature units", ge=0.0, le=10.0)
    merge_distance: float = setting(0.5, "HDBSCAN: clusters closer than this in scaled feature units stay one", ge=0.0, le=10.0)
    min_score: float = setting(0.2, "segments with a lower mean class probability are dropped", ge=0.0, le=1.0)
    score_surface_m2: float = setting(
        0.1, "segments of so much surface get 0.7 of their score, smaller ones less, m2; 0 = size does not matter", ge=0.0, le=100.0,
    )
    score_gap: float = setting(
        1.0, "how much a score falls where the predicted centre is not the segment's own; 0 = not at all", ge=0.0, le=100.0,
    )
    class_vote: str = setting(
        "mean", "class of a segment: highest mean probability, or the class of most of its voxels", choices=("mean", "majority"),
    )
    class_reach: int = setting(
        1, "connected components and proposals: voxels of one class up to this far apart (Chebyshev, voxels) are linked", ge=1, le=4,
    )
    mean_shift_bandwidth: float = setting(1.0, "mean shift: radius of the flat kernel, in scaled feature units", ge=0.01, le=100.0)
    proposal_bandwidths: tuple[float, ...] = setting(
        (0.5, 1.0, 1.5), "proposals: bandwidths of mean shift among embeddings, in scaled units", ge=0.01, le=100.0,
    )
    proposal_coherence: float = setting(
        0.5, "proposals: embeddings this near to the proposal's mean are coherent, in scaled units", ge=0.0, le=100.0,
    )
    proposal_feature_weight: float = setting(1.0, "proposals: weight of the embeddings' coherence in the score", ge=0.0, le=100.0)
    proposal_direction_weight: float = setting(1.0, "proposals: weight of the directions' coherence in the score; 0 = not read", ge=0.0, le=100.0)
    proposal_size_weight: float = setting(0.5, "proposals: weight of the size prior in the score", ge=0.0, le=100.0)
    proposal_min_m2: float = setting(0.1, "proposals: the size prior falls below this much surface, m2", ge=1e-6, le=1000.0)
    proposal_max_m2: float = setting(8.0, "proposals: the size prior falls above this much surface, m2", ge=1e-6, le=1000.0)
    proposal_overlap: float = setting(0.5, "proposals: one that overlaps a better one by more than this IoU goes", ge=0.0, le=1.0)
    proposal_rest: str = setting(
        "nearest", "proposals: voxels in none that is kept go to the instance of the nearest embedding, or to none", choices=("nearest", "none"),
    )
    supervoxel_scale: float = setting(1.0, "occupancy graph: k of the graph-based segmentation; larger = larger supervoxels", ge=0.0, le=1000.0)
    supervoxel_min_voxels: int = setting(10, "occupancy graph: smaller supervoxels join a neighbour", ge=1, le=1_000_000)
    supervoxel_color: float = setting(1.0, "occupancy graph: weight of the colour beside the normal when supervoxels are cut", ge=0.0, le=100.0)
    graph_threshold: float = setting(0.5, "occupancy graph: supervoxels merge while the best edge weighs more than this", ge=0.0, le=2.0)
    graph_feature: bool = setting(True, "occupancy graph: use the embeddings")
    graph_spatial: bool = setting(True, "occupancy graph: use the predicted centres")
    graph_occupancy: bool = setting(True, "occupancy graph: use the predicted occupancy, as divisor and as the final filter")
    graph_rejected: str = setting(
        "drop", "occupancy graph: instances whose occupancy ratio is not within 0.3 to 2 are dropped or kept", choices=("drop", "keep"),
    )
    occupancy_ratio: str = setting(
        "clustered_over_predicted", "occupancy graph: what the occupancy ratio is; the other way round is there for comparison",
        choices=("clustered_over_predicted", "predicted_over_clustered"),
    )


@dataclass
class TrackingConfig:
    """How segments keep their ids."""

    min_overlap: float = setting(
        0.2, "smallest voxel IoU with which a segment takes over an old id; one that nobody claims may also revive an id that would be lost",
        ge=0.0, le=1.0,
    )
    min_contained: float = setting(
        0.4, "or smallest share of shared voxels in the smaller of the two, so that an object keeps its id while it grows", ge=0.0, le=1.0
    )
    retire_after: int = setting(20, "updates during which a vanished instance can come back under its id", ge=0, le=100_000)


@dataclass
class SegmenterConfig:
    """The online pipeline: map, network, grouping, ids."""

    voxel_size_m: float = setting(0.05, "voxel size of the map, m; must equal what the weights were trained for", ge=0.001, le=1.0, fixed=True)
    weights: str = setting("", "safetensors file, or the name of a preset whose weights come with the package; empty = rooms", fixed=True)
    floor_known: bool = setting(True, "the floor lies at floor_z_m; false = unknown, classes are then told without the height", fixed=True)
    floor_z_m: float = setting(0.0, "height of the floor in the map's frame (z up), m", ge=-10000.0, le=10000.0, fixed=True)
    device: str = setting("auto", "where the network runs", choices=("auto", "cpu", "cuda"), fixed=True)
    threads: int = setting(0, "CPU threads for the network; 0 = all cores", ge=0, le=1024, fixed=True)
    passes: str = setting("incremental", "recompute only what changed, or the whole map at every update", choices=("incremental", "full"), fixed=True)
    tolerance: float = setting(
        0.02, "incremental passes: a voxel that moves by less than this share of its layer's mean magnitude stops the wave; 0 = exact",
        ge=0.0, le=1.0, fixed=True,
    )
    cache_mb: int = setting(
        0, "incremental passes: memory for the layers' outputs kept between updates, MB; what was needed least lately is let go "
        "of and computed again when something changes near it; 0 = no limit", ge=0, le=1_000_000, fixed=True,
    )
    cache_radius_m: float = setting(
        0.0, "likewise, what is further than this from where the map changed lately is let go of, m; labels and ids stay; 0 = no limit",
        ge=0.0, le=1_000_000.0, fixed=True,
    )
    cache_dtype: str = setting(
        "float32", "incremental passes: precision of the layers' outputs kept between updates; float16 takes half the memory, sums are of float32",
        choices=("float32", "float16"), fixed=True,
    )
    grouping: GroupingConfig = group(GroupingConfig)
    tracking: TrackingConfig = group(TrackingConfig)


@dataclass
class FusionConfig:
    """TSDF fusion of depth images into the map the segmenter reads."""

    voxel_size_m: float = setting(0.05, "voxel size of the fused map, m", ge=0.001, le=1.0, fixed=True)
    truncation_voxels: float = setting(3.0, "truncation distance of the TSDF, voxels", ge=1.0, le=32.0, fixed=True)
    max_depth_m: float = setting(4.0, "depth beyond this is not used, m", ge=0.1, le=100.0)
    min_depth_m: float = setting(0.3, "depth nearer than this is not used, m", ge=0.0, le=10.0)
    min_weight: float = setting(2.0, "a voxel is part of the map from this many observations on", ge=1.0, le=1000.0)
    surface_band: float = setting(0.6, "a voxel is on the surface if its TSDF is below this, voxels", ge=0.3, le=4.0)
    color_step: int = setting(12, "a voxel is sent again when a colour channel moved by more than this, 0 to 255", ge=0, le=255)
    block_count: int = setting(20000, "blocks of 8x8x8 voxels to reserve", ge=100, le=10_000_000, fixed=True)


@dataclass
class InputConfig:
    """What the segmenter node takes in."""

    points_mode: str = setting(
        "full", "what a cloud on map_points holds: the whole map (full), or only new and changed points (delta)",
        choices=("full", "delta"), fixed=True,
    )
    frame: str = setting("", "fixed frame the map must be in; empty = that of the first update", fixed=True)
    color_step: int = setting(
        12, "a voxel of a full cloud has changed when a colour channel moved by more than this, 0 to 255", ge=0, le=255,
    )
    distance_field: str = setting(
        "", "field of the clouds on map_points with the distance to the surface, m (voxblox's tsdf_pointcloud: intensity); empty = every point "
        "is on the surface", fixed=True,
    )
    distance_band: float = setting(0.6, "with distance_field: points nearer to the surface than this are taken, voxels", ge=0.1, le=10.0)
    nvblox: str = setting(
        "auto", "read nvblox_mesh and nvblox_layer: where nvblox_msgs is installed (auto), in any case (on: refuse to start without), or not",
        choices=("auto", "on", "off"), fixed=True,
    )
    nvblox_layer: str = setting(
        "color", "what the colours on nvblox_layer mean: colours (nvblox's color_layer), or weights (its tsdf_layer; the map is grey then)",
        choices=("color", "tsdf"), fixed=True,
    )
    nvblox_min_weight: float = setting(0.0, "with nvblox_layer tsdf: voxels of less weight are left out; nvblox shows up to 5", ge=0.0, le=5.0)
    max_waiting_voxels: int = setting(
        5_000_000, "updates waiting for the segmenter may hold this many voxels (a single one may hold more); more are dropped and the whole "
        "map is asked for",
        ge=1000, le=50_000_000,
    )
    max_backward_s: float = setting(1.0, "a stamp or clock that jumps back by more than this resets the map, s", ge=0.0, le=3600.0)
    max_ahead_s: float = setting(
        60.0, "a message with a stamp further ahead of the node's clock than this is refused, s; 0 = any stamp", ge=0.0, le=1e9,
    )
    request_period_s: float = setting(1.0, "wait before the whole map is asked for again; doubles up to 30 s", ge=0.05, le=30.0)


@dataclass
class OutputConfig:
    """What the segmenter node publishes, and how often."""

    colors: str = setting(
        "instances", "what the rgb field of the clouds shows", choices=("instances", "classes", "map"),
    )
    points_period_s: float = setting(1.0, "the whole labelled cloud is published at most this often, s", ge=0.0, le=3600.0)
    markers_period_s: float = setting(1.0, "all markers are published again after this time even if nothing changed, s", ge=0.1, le=3600.0)
    classes: tuple[str, ...] = setting(
        (), "only instances of these classes are in ~/instances, ~/detections and ~/markers; empty = all",
        choices=tuple(name for i, name in enumerate(CLASS_NAMES) if i not in BACKGROUND),
    )
    min_confidence: float = setting(0.0, "and only those of at least this confidence", ge=0.0, le=1.0)
    min_voxels: int = setting(0, "and only those of at least this many voxels", ge=0, le=1_000_000)
    boxes: str = setting(
        "oriented", "boxes of ~/detections and ~/markers: turned about the vertical to fit, or along the map's axes",
        choices=("oriented", "axis_aligned"),
    )
    text_height_m: float = setting(0.12, "height of the marker texts, m", ge=0.01, le=5.0)
    diagnostics_period_s: float = setting(1.0, "time between diagnostics, s", ge=0.1, le=60.0, fixed=True)


@dataclass
class StateConfig:
    """What the segmenter node keeps across restarts."""

    file: str = setting(
        "", "file below save_dir (.instseg) in which map, ids and their history outlive the node: saved now and then and at the end; empty = none",
        fixed=True,
    )
    period_s: float = setting(30.0, "the state is saved this often if anything has changed, s", ge=0.05, le=86400.0)
    resume: bool = setting(True, "go on from the state file at the start, if there is one; false = begin a new map", fixed=True)


@dataclass
class SegmenterNodeConfig(SegmenterConfig):
    """All parameters of the segmenter node."""

    input: InputConfig = group(InputConfig)
    output: OutputConfig = group(OutputConfig)
    state: StateConfig = group(StateConfig)
    save_dir: str = setting("", "only folder of saved maps and states; empty = instseg_ros in ROS_HOME (~/.ros)", fixed=True)


@dataclass
class PoseConfig:
    """Where the fusion node's camera poses come from."""

    source: str = setting(
        "topic", "PoseStamped of the optical frame on `pose` (topic), tf, or a recorded RGB-D folder that is played (folder)",
        choices=("topic", "tf", "folder"), fixed=True,
    )
    frame: str = setting("map", "fixed frame of the map; poses in another frame are refused", fixed=True)
    max_wait_s: float = setting(1.0, "a frame without a pose for this long is dropped, s", ge=0.0, le=60.0)
    max_gap_s: float = setting(0.2, "poses are interpolated between two that are at most this far apart, s", ge=0.0, le=10.0)


@dataclass
class FolderConfig:
    """How a recorded RGB-D folder is played."""

    path: str = setting("", "RGB-D folder (sequence.json, TUM or ScanNet layout)", fixed=True)
    rate_hz: float = setting(10.0, "frames per second", ge=0.01, le=1000.0, fixed=True)
    stamps: str = setting("now", "stamps of the played frames: the node's clock, or as recorded", choices=("now", "recorded"), fixed=True)
    wait_for_subscribers: int = setting(0, "playing starts when map_updates has this many subscribers", ge=0, le=100, fixed=True)


@dataclass
class BagPlayerConfig:
    """All parameters of the bag player."""

    path: str = setting("", "bag: folder of a recording, or a .mcap, .db3 or .bag file", fixed=True)
    rate: float = setting(1.0, "times as fast as it was recorded", ge=0.01, le=1000.0, fixed=True)
    depth: str = setting("", "topic in the bag of the depth images; this one and the next: empty = found by type and name", fixed=True)
    color: str = setting("", "topic in the bag of the colour images", fixed=True)
    camera_info: str = setting("", "topic in the bag of the CameraInfo of the depth images", fixed=True)
    pose: str = setting("", "topic in the bag of the poses (PoseStamped) of the optical frame; none = /tf", fixed=True)
    map: str = setting("", "topic in the bag of a map (MapUpdate or PointCloud2); if given, images are not looked for", fixed=True)
    fixed_frame: str = setting("", "frame of the map where poses come from /tf; empty = the root of the tree", fixed=True)
    clock_hz: float = setting(50.0, "messages on /clock per second", ge=1.0, le=1000.0, fixed=True)
    subscribers: int = setting(1, "playing starts when every topic played has so many subscribers", ge=0, le=100, fixed=True)
    wait_for: str = setting("", "topic that must have a subscriber too by then: the map updates that a fusion node makes", fixed=True)
    wait_s: float = setting(60.0, "longest wait for subscribers, s; then it plays all the same", ge=0.0, le=3600.0, fixed=True)
    tail_s: float = setting(5.0, "the clock goes on for this long after the last message, s", ge=0.0, le=1e6, fixed=True)


@dataclass
class ImagesConfig:
    """How depth, colour and camera info are paired."""

    slop_s: float = setting(0.02, "depth and colour images this close in time are one frame, s", ge=0.0, le=1.0)
    max_waiting_frames: int = setting(10, "frames waiting for a pose or for fusion; the oldest is dropped beyond that", ge=1, le=1000)
    depth_unit_m: float = setting(0.001, "metres per count of 16UC1 depth images", ge=1e-6, le=1.0, fixed=True)


@dataclass
class FusionNodeConfig(FusionConfig):
    """All parameters of the fusion node."""

    pose: PoseConfig = group(PoseConfig)
    folder: FolderConfig = group(FolderConfig)
    images: ImagesConfig = group(ImagesConfig)
    publish_period_s: float = setting(0.5, "changed voxels are published this often, s", ge=0.01, le=60.0)
    max_backward_s: float = setting(1.0, "a stamp or clock that jumps back by more than this resets the map, s", ge=0.0, le=3600.0)
    diagnostics_period_s: float = setting(1.0, "time between diagnostics, s", ge=0.1, le=60.0, fixed=True)


@dataclass
class LossConfig:
    """Which losses are added up, and how each is meant; a weight of 0 leaves one out. A head without a loss does not learn."""

    semantic: float = setting(1.0, "weight of the class loss", ge=0.0, le=1000.0)
    semantic_calibration: float = setting(
        0.5, "rare classes weigh more in the class loss, which makes the network say them too often: share of that to take back", ge=0.0, le=1.0,
    )
    pull: float = setting(1.0, "weight of the pull term (within instances)", ge=0.0, le=1000.0)
    push: float = setting(1.0, "weight of the push term (between instances)", ge=0.0, le=1000.0)
    regularization: float = setting(0.0, "weight of the mean embeddings' distance from the origin", ge=0.0, le=1000.0)
    pull_margin: float = setting(0.1, "embeddings this near to their mean are not pulled", ge=0.0, le=10.0)
    push_margin: float = setting(0.5, "half the distance at which two instances are no longer pushed", ge=0.0, le=10.0)
    squared: bool = setting(False, "square the hinges of pull and push")
    structure: bool = setting(False, "pull harder far from the centre of the instance (Liang et al. 2019)")
    size_power: float = setting(0.0, "instances are weighed by their size to this power in the pull term (SSEN eq. 3)", ge=0.0, le=1.0)
    offset: float = setting(1.0, "weight of the loss of the offset to the centre", ge=0.0, le=1000.0)
    offset_norm: str = setting(
        "l1", "offset loss: l1 over all voxels, or l2 averaged by instance (OccuSeg eq. 3)", choices=("l1", "l2"),
    )
    direction: float = setting(0.0, "weight of the direction loss (MTML eq. 5)", ge=0.0, le=1000.0)
    covariance: float = setting(0.0, "weight of the covariance loss (OccuSeg eq. 9)", ge=0.0, le=1000.0)
    occupancy: float = setting(0.0, "weight of the occupancy loss (OccuSeg eq. 10)", ge=0.0, le=1000.0)
    semantic_first_steps: int = setting(0, "steps at the beginning in which classes alone are learnt", ge=0, le=100_000_000)


@dataclass
class AugmentationConfig:
    """How scenes are varied from step to step."""

    crop_m: float = setting(4.0, "edge of the square column cut out of a scene, m; 0 = whole scenes", ge=0.0, le=1000.0)
    thin: float = setting(0.1, "largest share of voxels dropped at random", ge=0.0, le=0.9)
    rotation: str = setting(
        "grid", "turn about the vertical by quarter turns and mirror, which maps voxels to voxels, or by any angle", choices=("grid", "any"),
    )
    tilt_deg: float = setting(0.0, "standard deviation of the tilt, degrees; with rotation = any", ge=0.0, le=45.0)
    most_tilt_deg: float = setting(10.0, "largest tilt, degrees", ge=0.0, le=90.0)
    least_scale: float = setting(1.0, "smallest scale; with rotation = any", ge=0.1, le=1.0)
    most_scale: float = setting(1.0, "largest scale", ge=1.0, le=10.0)
    color_jitter: float = setting(0.1, "standard deviation of the colour jitter, 0 to 1", ge=0.0, le=1.0)
    color_drop: float = setting(0.2, "share of scenes whose colours are replaced by grey", ge=0.0, le=1.0)
    object_dye: float = setting(0.3, "share of objects given colours of their own", ge=0.0, le=1.0)
    height_drop: float = setting(0.25, "share of scenes whose floor height is hidden from the network", ge=0.0, le=1.0)
    height_jitter_m: float = setting(0.1, "largest error of the floor height, m", ge=0.0, le=10.0)


@dataclass
class TrainingConfig:
    """A preset: network, losses, schedule and augmentation of a training run, and how what it predicts is grouped."""

    steps: int = setting(4000, "optimiser steps", ge=1, le=100_000_000)
    batch_voxels: int = setting(40000, "scenes are put together until they reach this many voxels", ge=100, le=100_000_000)
    batch_scenes: int = setting(0, "and this many scenes; 0 = any number", ge=0, le=10_000)
    micro_batches: int = setting(1, "batches of this size that a step takes the mean of; several processes share them out", ge=1, le=100_000)
    optimizer: str = setting("adamw", "optimiser of the run", choices=("adamw", "adam"))
    learning_rate: float = setting(2e-3, "peak learning rate", ge=0.0, le=1.0)
    weight_decay: float = setting(1e-3, "weight decay of adamw", ge=0.0, le=1.0)
    schedule: str = setting("one_cycle", "learning rate over the steps", choices=("one_cycle", "constant", "decay"))
    warmup: float = setting(0.05, "one_cycle: share of the steps in which the learning rate rises", ge=0.0, le=1.0)
    decay: float = setting(0.8, "decay: factor", ge=0.0, le=1.0)
    decay_every: int = setting(10_000, "decay: steps between two decays", ge=1, le=100_000_000)
    seed: int = setting(0, "seed of weights, order and augmentation", ge=0, le=2**31 - 1)
    validate_every: int = setting(500, "steps between validations", ge=1, le=100_000_000)
    checkpoint_every: int = setting(200, "steps between checkpoints", ge=1, le=100_000_000)
    amp: bool = setting(True, "mixed precision where the device is CUDA")
    losses: LossConfig = group(LossConfig)
    augmentation: AugmentationConfig = group(AugmentationConfig)
    model: ModelConfig = group(ModelConfig)
    grouping: GroupingConfig = group(GroupingConfig)
