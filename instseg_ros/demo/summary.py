"""What `summary.json` says of a run."""

__all__ = ["ID_SWITCH_RULE", "summarise"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from instseg_ros.datasets.scene_mesh import SceneMesh
from instseg_ros.datasets.scenes import label_voxels
from instseg_ros.evaluation.id_switches import IdConsistency
from instseg_ros.labels import CLASS_NAMES, IGNORE, class_to_nyu40
from instseg_ros.live.recording import Recording, State, dropped, latencies_ms, percentiles
from instseg_ros.mapping.update import coord_keys

ID_SWITCH_RULE = (
    "objects are those of the simulated room with 20 voxels or more in the map; at every update an object is matched to the id "
    "whose voxels overlap with it by more than half (IoU over the whole map); a switch is a match to another id than the "
    "object's last match"
)


def id_switches(states: Sequence[State], mesh: SceneMesh, voxel_size_m: float) -> IdConsistency:
    """Follow the ids of the room's objects through all states of the map."""
    everything = np.unique(np.concatenate([state.coords for state in states]), axis=0)
    _, truth = label_voxels(everything, voxel_size_m, mesh)
    keys = coord_keys(everything)
    order = np.argsort(keys)
    consistency = IdConsistency()
    for state in states:
        rows = order[np.searchsorted(keys[order], coord_keys(state.coords))]
        consistency.add(truth[rows], state.cloud.instance)
    return consistency


def summarise(
    recording: Recording, states: Sequence[State], mesh: SceneMesh, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict]]:
    """Figures and rows (one per final instance) of a run.

    Args:
        recording: what was on the topics.
        states: the map after each answer; at least one.
        mesh: the room, for the id switches.
        settings: what the run was made with, kept among the figures.
    """
    latencies = latencies_ms(recording)
    published = np.array([at_ns for at_ns, _ in recording.updates]) / 1e6
    sequences = [update.sequence for _, update in recording.updates]
    causes = dropped(recording.diagnostics)
    missed = max(sequences) - min(sequences) + 1 - len(set(sequences))
    if missed:
        causes["map_updates_not_received"] = missed
    voxel_size_m = recording.updates[0][1].voxel_size_m
    consistency = id_switches(states, mesh, voxel_size_m)
    periods = np.diff(published)
    figures = {
        **settings,
        "updates": len(recording.updates),
        "updates_segmented": len(latencies),
        "answers": len(recording.answers),
        "voxels": len(states[-1].coords),
        "instances": len(states[-1].instances),
        "events": len(recording.events),
        "latency_ms": percentiles(list(latencies.values())),
        "update_period_ms": round(float(np.median(periods)), 1) if len(periods) else None,
        "drops": sum(causes.values()),
        "drops_by_cause": causes,
        "id_switches": consistency.switches,
        "id_switch_rule": ID_SWITCH_RULE,
        "object_updates": consistency.instance_updates,
        "objects_switched": [
            {"update": update, "object": mesh.instances[thing].name, "from": before, "to": now}
            for update, thing, before, now in consistency.switched
        ],
    }
    rows = [instance_row(one) for one in sorted(states[-1].instances, key=lambda one: -one.voxels)]
    return figures, rows


def instance_row(one: Any) -> dict[str, Any]:
    """A final instance: id, class, score and size."""
    low, high = np.asarray(one.box_min_m, np.float64), np.asarray(one.box_max_m, np.float64)
    return {
        "id": one.id,
        "class": CLASS_NAMES[one.class_index] if one.class_index != IGNORE else "unlabelled",
        "nyu40": int(class_to_nyu40(np.array([one.class_index]))[0]),
        "score": round(one.score, 4),
        "voxels": one.voxels,
        "center_m": np.round(np.asarray(one.center_m, np.float64), 3),
        "size_m": np.round(high - low, 3),
    }
