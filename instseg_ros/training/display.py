"""What a run shows of itself: a progress bar, lines on the terminal and TensorBoard events."""

__all__ = ["Display"]

from pathlib import Path
from types import TracebackType

from tqdm import tqdm

_EVERY = 20
"""Losses are shown and written every so many steps."""


class Display:
    """Of a run, from its first to its last step; closed by `with`.

    Args:
        out: folder of the TensorBoard events.
        step: the run starts from.
        steps: of the run.
        shown: whether to show and write anything: one of several processes does.
    """

    def __init__(self, out: Path, step: int, steps: int, shown: bool = True) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out), purge_step=step) if shown else None
        self._progress = tqdm(total=steps, initial=step, unit="step", desc="train", smoothing=0.05, disable=not shown)
        self._mean: dict[str, float] = {}
        self._ap50: dict[str, str] = {}

    def losses(self, step: int, terms: dict[str, float]) -> None:
        """Take the loss terms of a step."""
        for name, value in terms.items():
            self._mean[name] = value if name not in self._mean else 0.98 * self._mean[name] + 0.02 * value
        self._progress.update()
        if step % _EVERY == 0:
            self._progress.set_postfix({k: f"{v:.3f}" for k, v in self._mean.items()} | self._ap50)
            self._write("loss", step, terms)

    def figures(self, step: int, figures: dict[str, float]) -> None:
        """Take the figures of a validation."""
        self._ap50 = {"ap50": f"{figures['ap50']:.3f}"}
        self._write("validation", step, figures)
        if self._writer is not None:
            tqdm.write(f"step {step}: " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))

    def _write(self, kind: str, step: int, values: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.close()
        if self._writer is not None:
            self._writer.close()
