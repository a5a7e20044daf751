"""Findings: what a check saw, and what to do about it."""

__all__ = ["Finding", "guarded", "note", "ok", "problem"]

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    level: str
    """ok, note (works, but worth knowing) or problem (something will not work)."""
    text: str
    cure: str = ""
    """What to do about it; empty if nothing is to be done."""

    def line(self) -> str:
        """As it is printed."""
        return f"{self.level:<8}{self.check:<13}{self.text}" + (f" -> {self.cure}" if self.cure else "")

    def row(self) -> dict[str, Any]:
        """As it stands in the JSON report."""
        return asdict(self)


def ok(check: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(check, "ok", text)


def note(check: str, text: str, cure: str = "") -> Finding:
    """It works, but is worth knowing."""
    return Finding(check, "note", text, cure)


def problem(check: str, text: str, cure: str) -> Finding:
    """Something will not work until the cure is taken."""
    return Finding(check, "problem", text, cure)


def guarded(check: str, run: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of a check; one that fails itself is a problem, so that the others are still made."""
    found: list[Finding] = []
    try:
        for finding in run():
            found.append(finding)
    except Exception as error:  # whatever is wrong with this machine is what the user wants to know
        found.append(problem(check, f"could not be checked: {type(error).__name__}: {error}", "see the error; the other checks are not affected"))
    return found
