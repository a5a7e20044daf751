"""A name for a run that is the same for the same settings."""

__all__ = ["run_name"]

import hashlib
import json
from dataclasses import replace

from instseg_ros.config import GroupingConfig, TrainingConfig
from instseg_ros.settings import to_mapping


def run_name(preset: str, config: TrainingConfig) -> str:
    """`PRESET_SEED_HASH` of everything that decides the weights: runs that differ in their grouping alone share one name."""
    settings = json.dumps(to_mapping(replace(config, grouping=GroupingConfig())), sort_keys=True)
    return f"{preset}_{config.seed}_{hashlib.sha256(settings.encode()).hexdigest()[:10]}"
