"""The errors of the package: every one names its cause and its cure."""

__all__ = ["BusyError", "ConfigError", "DataError", "InputError", "InstSegError", "MissingDependencyError", "WeightsError", "require"]

import importlib
from types import ModuleType


class InstSegError(Exception):
    """Base class: catching it catches everything the package raises on purpose."""


class InputError(InstSegError, ValueError):
    """A message, cloud or map update is malformed; what it was meant for is left unchanged."""


class BusyError(InstSegError, RuntimeError):
    """Something runs still that has to end first; nothing has changed."""


class ConfigError(InstSegError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(InstSegError, ValueError):
    """A file or folder is missing, damaged or of another format than expected."""


class WeightsError(DataError):
    """A weights file cannot be used with this model."""


class MissingDependencyError(InstSegError, ImportError):
    """An optional library is needed here and is not installed."""


def require(module: str, why: str, install: str) -> ModuleType:
    """Import an optional library where it is used.

    Args:
        module: dotted name to import.
        why: what it is needed for, completing "... is needed to".
        install: the command that installs it.

    Raises:
        MissingDependencyError: it is not installed; the message says what to run.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"{module} is needed to {why}. Install it: {install}  ({error})") from error
