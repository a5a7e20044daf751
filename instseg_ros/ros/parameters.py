"""ROS parameters from the settings dataclasses."""

__all__ = ["ConfigParameters", "declare_config", "parameter_table"]

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from instseg_ros.errors import ConfigError
from instseg_ros.settings import Setting, flatten, from_mapping, settings_of

T = TypeVar("T")
_ARRAYS = {str: Parameter.Type.STRING_ARRAY, int: Parameter.Type.INTEGER_ARRAY, float: Parameter.Type.DOUBLE_ARRAY}
_OF_ROS = ("use_sim_time", "start_type_description_service")


class ConfigParameters(Generic[T]):
    """The settings of a config class as parameters of a node, with description and range.

    Those that can only be set at start can be set until `settle`, and again after `release`; in between they are read-only.
    `config` is replaced when a parameter is set; `on_change` is called with the new config and the names that changed.

    Args:
        node: whose parameters they become.
        cls: the config class.
        on_change: called with the new config and the names that changed.

    Raises:
        ConfigError: a parameter given at start is unknown or its value is refused; the text says what is allowed.
    """

    def __init__(self, node: Node, cls: type[T], on_change: Callable[[T, list[str]], None]) -> None:
        self._node, self._on_change = node, on_change
        self._settings = settings_of(cls)
        self._names = {s.name for s in self._settings}
        overrides = {name: _plain(parameter.value) for name, parameter in node._parameter_overrides.items()}
        _refuse_unknown(overrides, [s.name for s in self._settings])
        self._given = {s.name: overrides[s.name] for s in self._settings if s.name in overrides}
        # `name: []` arrives as a value that is not set.
        self._given.update({s.name: () for s in self._settings if s.kind is tuple and overrides.get(s.name, ()) is None})
        self.config: T = from_mapping(cls, self._given)
        values = flatten(self.config)
        for s in self._settings:
            # The checked value, so that `period:=1` is as good as `period:=1.0`.
            node.declare_parameter(s.name, _value(values[s.name]), _descriptor(s), ignore_override=True)
            if values[s.name] == () and s.item is not None:
                node.set_parameters([Parameter(s.name, _ARRAYS[s.item], [])])  # rclpy takes it for an array of bytes
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._take_over)

    def settle(self, over: Callable[[type[T], Callable[[T | None], T]], T] | None = None) -> T:
        """The config to start with; from now on, what can only be set at start is read-only.

        Args:
            over: makes the config from a function that builds what was given over another one, such as
                `models.weights.settings_over_weights`.

        Raises:
            ConfigError, or what `over` raises: then nothing has changed.
        """
        cls, given = type(self.config), dict(self._given)
        if over is not None:
            self.config = over(cls, lambda base: from_mapping(cls, given, base))
            values = {name: _value(value) for name, value in flatten(self.config).items()}
            other = [name for name, value in values.items() if _plain(self._node.get_parameter(name).value) != value]
            self._node.set_parameters_atomically([Parameter(name, value=values[name]) for name in other])
            self._given = given  # what the weights brought was not given: other weights may bring something else
        self._make_read_only(True)
        return self.config

    def release(self) -> None:
        """Let everything be set again, until the next `settle`."""
        self._make_read_only(False)

    def _make_read_only(self, fixed: bool) -> None:
        for s in self._settings:
            self._node.describe_parameter(s.name).read_only = fixed and s.fixed

    def _changes(self, parameters: Sequence[Parameter]) -> dict[str, Any]:
        return {p.name: _plain(p.value) for p in parameters if p.name in self._names}

    def _check(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        try:
            from_mapping(type(self.config), self._changes(parameters), self.config)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take_over(self, parameters: Sequence[Parameter]) -> None:
        changes, before = self._changes(parameters), flatten(self.config)
        self._given.update(changes)
        config = from_mapping(type(self.config), changes, self.config)
        changed = [name for name, value in flatten(config).items() if value != before[name]]
        if changed:
            self.config = config
            self._on_change(config, changed)


def declare_config(node: Node, cls: type[T], on_change: Callable[[T, list[str]], None]) -> ConfigParameters[T]:
    """The parameters of a node that runs from the start: `ConfigParameters`, settled."""
    parameters = ConfigParameters(node, cls, on_change)
    parameters.settle()
    return parameters


def _value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _plain(value: Any) -> Any:
    return list(value) if hasattr(value, "typecode") else value


def _refuse_unknown(overrides: dict[str, Any], known: list[str]) -> None:
    unknown = [n for n in overrides if n not in known and n not in _OF_ROS and not n.startswith("qos_overrides.")]
    if not unknown:
        return
    near = [close for name in unknown for close in difflib.get_close_matches(name, known, n=2)]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(f"unknown parameter {', '.join(sorted(unknown))}.{hint} Allowed are {', '.join(known)}")


def _descriptor(s: Setting) -> ParameterDescriptor:
    # Tools send an empty list as a list of anything: where it is allowed, `Setting.check` alone looks at the type.
    may_be_empty = s.kind is tuple and not s.default
    descriptor = ParameterDescriptor(description=s.doc, dynamic_typing=may_be_empty)
    if s.choices:
        descriptor.additional_constraints = "one of " + ", ".join(map(repr, s.choices))
    if s.ge is not None and s.le is not None:
        if s.kind is float:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(s.ge), to_value=float(s.le), step=0.0)]
        elif s.kind is int:
            descriptor.integer_range = [IntegerRange(from_value=int(s.ge), to_value=int(s.le), step=1)]
    return descriptor


def parameter_table(cls: type) -> str:
    """The Markdown table of a config class's parameters, as docs/ros.md shows it."""
    rows = ["| parameter | default | allowed | |", "| --- | --- | --- | --- |"]
    for s in settings_of(cls):
        allowed = ", ".join(s.choices) if s.choices else "" if s.ge is None else f"{s.ge:g} to {s.le:g}"
        default = {"": "(empty)", "()": "(empty)"}.get(str(s.default), str(s.default).lower() if s.kind is bool else str(s.default))
        rows.append(f"| `{s.name}` | {default} | {allowed} | {s.doc}{' (*start*)' if s.fixed else ''} |")
    return "\n".join(rows)
