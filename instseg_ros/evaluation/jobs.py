"""Evaluation of one case as a job that any process can do."""

__all__ = ["ComparisonJob", "Job", "run_job"]

from dataclasses import dataclass
from typing import Any

from instseg_ros.config import SegmenterConfig
from instseg_ros.evaluation.entries import Entry, Score, segmenter_for
from instseg_ros.evaluation.evaluate import CaseResult, evaluate_case
from instseg_ros.evaluation.ground_truth import install_oracles
from instseg_ros.evaluation.scan_jobs import ScanJob
from instseg_ros.evaluation.sources import CaseSource


@dataclass(frozen=True)
class Job:
    """One case to make and to run; plain enough to be sent to another process."""

    source: CaseSource
    config: SegmenterConfig
    modes: tuple[str, ...]
    oracles: tuple[str, ...] = ()
    rotations: int = 1

    def run(self) -> CaseResult:
        """Make the case (or read it from the cache) and run it."""
        case = self.source.case()
        segmenter = segmenter_for(self.config, self.oracles, self.rotations)
        install_oracles(segmenter, case.truth, self.oracles)
        return evaluate_case(segmenter, case, self.modes)


@dataclass(frozen=True)
class ComparisonJob:
    """One case to make and to run with every entry."""

    source: CaseSource
    entries: tuple[Entry, ...]
    modes: tuple[str, ...]

    def run(self) -> tuple[str, dict[str, dict[str, Score]]]:
        """The case's name, and the scores of each entry by mode."""
        case = self.source.case()
        return case.name, {entry.name: entry.scores(case, self.modes) for entry in self.entries}


def run_job(job: Job | ComparisonJob | ScanJob) -> Any:
    """The result of a job: what worker processes are called with."""
    return job.run()
