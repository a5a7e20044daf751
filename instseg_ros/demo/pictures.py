"""Pictures of the map in colour and in instances as it grew."""

__all__ = ["write_demo_pictures"]

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from instseg_ros.live.recording import State
from instseg_ros.visual.pictures import MapPictures, beside, growth_strip, titled, write_gif, write_png

GIF_FRAMES = 24


def write_demo_pictures(out: Path, states: Sequence[State], voxel_size_m: float) -> list[Path]:
    """map_color.png and map_instances.png of the final map, growth_color.png and growth_instances.png with four stages of it,
    and growth.gif; returns the files."""
    final = states[-1]
    view = MapPictures.choose_view(final.cloud, voxel_size_m)
    large = MapPictures(final.cloud, final.instances, voxel_size_m, view)
    write_png(out / "map_color.png", titled(large.color(), f"{len(final.coords)} voxels"))
    write_png(out / "map_instances.png", titled(large.instance(), f"{len(final.instances)} instances"))

    filled = [state for state in states if len(state.coords)]
    chosen = np.unique(np.linspace(0, len(filled) - 1, min(GIF_FRAMES, len(filled))).round().astype(int))
    colors, instances, titles = [], [], []
    for state in tqdm([filled[i] for i in chosen], desc="pictures", unit="picture"):
        small = MapPictures(state.cloud, state.instances, voxel_size_m, view, (520, 420), final.cloud.points_m)
        colors.append(small.color())
        instances.append(small.instance())
        titles.append(f"update {state.sequence + 1}")
    write_png(out / "growth_color.png", growth_strip(colors, titles))
    write_png(out / "growth_instances.png", growth_strip(instances, titles))
    frames = [titled(beside([c, i]), title) for c, i, title in zip(colors, instances, titles, strict=True)]
    write_gif(out / "growth.gif", frames)
    return [
        out / f"{name}"
        for name in ("map_color.png", "map_instances.png", "growth_color.png", "growth_instances.png", "growth.gif")
    ]
