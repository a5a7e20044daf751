"""What an incremental refresh did, layer by layer."""

__all__ = ["LayerStatistics"]

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerStatistics:
    """What the last refresh did in one layer."""

    name: str
    rows: int
    """Rows of the layer's level in use."""
    due: int
    changed: int
