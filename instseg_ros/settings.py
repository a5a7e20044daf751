"""Settings as fields of dataclasses: read from YAML, ROS parameters and command-line flags, checked by one code.

Every field is made by `setting`, which keeps its meaning, unit and range beside its default. Nested groups
are dataclasses themselves; their fields are named with dots (`grouping.min_voxels`).
"""

__all__ = [
    "Setting", "add_setting_arguments", "flatten", "from_mapping", "group", "load_yaml", "setting", "settings_from_arguments",
    "settings_of", "to_mapping",
]

import argparse
import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from instseg_ros.errors import ConfigError

T = TypeVar("T")


def setting(
    default: Any, doc: str, *, ge: float | None = None, le: float | None = None,
    choices: tuple[str, ...] | None = None, fixed: bool = False,
) -> Any:
    """A dataclass field with its meaning.

    Args:
        default: default value (bool, int, float, str, or a tuple of ints, floats or strings).
        doc: one sentence with the unit.
        ge, le: smallest and largest value allowed.
        choices: the strings allowed, in a tuple for each of its elements.
        fixed: can only be set at start (a read-only ROS parameter).
    """
    return field(default=default, metadata={"doc": doc, "ge": ge, "le": le, "choices": choices, "fixed": fixed})


def group(cls: type[T]) -> T:
    """A nested group of settings."""
    return typing.cast(T, field(default_factory=cls))


@dataclass(frozen=True)
class Setting:
    """One flattened setting: dotted name, type, default and what `setting` said of it."""

    name: str
    kind: type
    item: type | None
    """Type of a tuple's elements, else None."""
    default: Any
    doc: str
    ge: float | None
    le: float | None
    choices: tuple[str, ...] | None
    fixed: bool

    def check(self, value: Any) -> Any:
        """The value in the setting's own type.

        Raises:
            ConfigError: wrong type, out of range, or not one of the choices.
        """
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(value, bool) and self.kind is str and self.choices and {"on", "off"} <= set(self.choices):
            value = "on" if value else "off"  # YAML reads the bare words as booleans
        if self.kind is tuple and isinstance(value, (list, tuple)):
            value = tuple(value)
            if self.item is float:
                value = tuple(float(v) if type(v) is int else v for v in value)
        if not self._fits(value):
            what = self.kind.__name__ if self.item is None else f"a list of {self.item.__name__}"
            example = self.choices[:1] if self.choices and self.default == () else self.default
            raise ConfigError(f"{self.name} = {value!r}: expected {what}, like {example!r}")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                low = self.ge is not None and not number >= self.ge
                high = self.le is not None and not number <= self.le
                if low or high or number != number:
                    raise ConfigError(f"{self.name} = {number}: allowed is {self.ge} to {self.le}. {self.doc}")
        if self.choices is not None and any(v not in self.choices for v in (value if isinstance(value, tuple) else (value,))):
            raise ConfigError(f"{self.name} = {value!r}: allowed is {', '.join(map(repr, self.choices))}")
        return value

    def _fits(self, value: Any) -> bool:
        if self.item is None:
            return _is_a(value, self.kind)
        return isinstance(value, tuple) and all(_is_a(v, self.item) for v in value)


def _is_a(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def add_setting_arguments(parser: argparse._ActionsContainer, cls: type) -> None:
    """A flag `--name` for every setting of a config class (dots stay, underscores become dashes)."""
    for s in settings_of(cls):
        kind: Any = s.kind
        count = None
        if kind is bool:
            kind = _parse_bool
        elif kind is tuple:
            kind, count = s.item, "+" if s.default else "*"
        parser.add_argument(
            "--" + s.name.replace("_", "-"), dest="setting:" + s.name, type=kind, default=argparse.SUPPRESS,
            nargs=count, choices=s.choices, metavar=None if s.choices else s.kind.__name__.upper(),
            help=f"{s.doc} (default: {s.default})".replace("%", "%%"),
        )


def settings_from_arguments(cls: type[T], args: argparse.Namespace, base: T | None = None) -> T:
    """A config object from the flags of `add_setting_arguments` that were given, over `base`."""
    given = {k.removeprefix("setting:"): v for k, v in vars(args).items() if k.startswith("setting:")}
    return from_mapping(cls, given, base)


def _parse_bool(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return words[text.lower()]


def settings_of(cls: type, prefix: str = "") -> list[Setting]:
    """The settings of a config class, nested groups flattened, in order of declaration."""
    hints = typing.get_type_hints(cls)
    found: list[Setting] = []
    for f in dataclasses.fields(cls):
        kind = hints[f.name]
        if dataclasses.is_dataclass(kind):
            found += settings_of(typing.cast(type, kind), f"{prefix}{f.name}.")
        else:
            item = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None
            found.append(Setting(prefix + f.name, typing.get_origin(kind) or kind, item, f.default, **f.metadata))
    return found


def flatten(config: Any) -> dict[str, Any]:
    """Dotted names to values of a config object."""
    values: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            values.update({f"{f.name}.{name}": v for name, v in flatten(value).items()})
        else:
            values[f.name] = value
    return values


def to_mapping(config: Any) -> dict[str, Any]:
    """A config object as nested plain dicts, ready for YAML or JSON."""
    return {
        f.name: to_mapping(v) if dataclasses.is_dataclass(v) else list(v) if isinstance(v, tuple) else v
        for f in dataclasses.fields(config)
        for v in (getattr(config, f.name),)
    }


def from_mapping(cls: type[T], values: Mapping[str, Any], base: T | None = None) -> T:
    """A config object from nested or dotted names; what is not named keeps its value in `base` (or its default).

    Raises:
        ConfigError: a name is unknown (the message lists what is allowed) or a value is refused.
    """
    flat: dict[str, Any] = {}

    def collect(mapping: Mapping[str, Any], prefix: str) -> None:
        for key, value in mapping.items():
            if isinstance(value, Mapping):
                collect(value, f"{prefix}{key}.")
            else:
                flat[prefix + str(key)] = value

    collect(values, "")
    known = {s.name: s for s in settings_of(cls)}
    unknown = sorted(set(flat) - set(known))
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}; {cls.__name__} has {', '.join(known)}")
    checked = {name: known[name].check(value) for name, value in flat.items()}
    return _build(cls, checked, base if base is not None else cls())


def _build(cls: type[T], values: dict[str, Any], base: Any) -> T:
    arguments = {}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        current = getattr(base, f.name)
        if dataclasses.is_dataclass(current):
            nested = {k.split(".", 1)[1]: v for k, v in values.items() if k.startswith(f.name + ".")}
            arguments[f.name] = _build(type(current), nested, current)
        else:
            arguments[f.name] = values.get(f.name, current)
    return cls(**arguments)


def load_yaml(cls: type[T], path: Path | str, base: T | None = None) -> T:
    """A config object from a YAML file.

    Raises:
        ConfigError: the file is missing, not YAML, or `from_mapping` refuses it.
    """
    try:
        values = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read settings from {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of setting names to values")
    try:
        return from_mapping(cls, values, base)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error

