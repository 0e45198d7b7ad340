"""Values of settings, from wherever: converted to the type that their field declares, and checked against its bounds."""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union

from policyserver.common.bounds import bare, bounds_of, bounds_text, is_within
from policyserver.common.settings_declaration import NONE, SettingField, describe, fields_of, is_dataclass_type, join, kind_of


class SettingsError(ValueError):
    """A setting that cannot be used.

    Attributes:
        key: The dotted key at fault, empty when the file as a whole is.
        source: Where the value came from: the file, the option, or the class that was given it in Python.
        problem: What was expected and what was received.
    """

    def __init__(self, key: str, source: str, problem: str) -> None:
        super().__init__(": ".join(part for part in (source, key, problem) if part))
        self.key = key
        self.source = source
        self.problem = problem

    def __reduce__(self) -> tuple[type[SettingsError], tuple[str, str, str]]:
        """Pickle by the three parts, since the message alone does not rebuild them."""
        return type(self), (self.key, self.source, self.problem)


class UnknownKeyError(SettingsError):
    """A key that names no field."""


class Config:
    """Base of every settings dataclass: converts and checks its fields on construction, as for a file or an option.

    A check of several fields goes into `_check`.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        """Convert each field and check it.

        Raises:
            SettingsError: A value has the wrong type, is out of its bounds, or contradicts another.
        """
        cls: Any = type(self)
        fields = fields_of(cls)
        try:
            for name, field in fields.items():
                object.__setattr__(self, name, _field_value(field, getattr(self, name), name))
            self._check()
        except ValueError as error:
            key, problem = (error.key, error.problem) if isinstance(error, SettingsError) else _split(str(error), fields)
            raise SettingsError(key, f"argument of {cls.__name__}", problem) from error

    def _check(self) -> None:
        """Check fields against each other; raise a ValueError whose text begins with the name of one and a colon."""


def build(cls: Any, table: Mapping[str, Any], key: str) -> Any:
    """Make a dataclass of a table.

    Args:
        cls: The dataclass.
        table: Field to value, as TOML has it.
        key: The table's dotted key, for errors.

    Raises:
        SettingsError: A key is unknown or missing, or a value is of the wrong type or out of its bounds; its source is left open.
    """
    fields = fields_of(cls)
    for name in table:
        if name not in fields:
            raise UnknownKeyError(join(key, name), "", f"unknown key; known here: {', '.join(join(key, known) for known in fields)}")
    for name, field in fields.items():
        if field.is_required and name not in table:
            raise SettingsError(join(key, name), "", "expected a value, received none")
    values = {name: _field_value(fields[name], value, join(key, name)) for name, value in table.items()}
    try:
        return cls(**values)
    except SettingsError as error:
        raise SettingsError(join(key, error.key), "", error.problem) from error


def convert(value: Any, hint: Any, key: str, otherwise: str = "") -> Any:
    """Convert a value to a type and check the type's bounds.

    Args:
        value: As TOML or Python has it.
        hint: The declared type.
        key: The dotted key, for errors.
        otherwise: What else is accepted, for errors.

    Raises:
        SettingsError: The value is of another type or out of bounds; its source is left open.
    """
    bounds = bounds_of(hint)
    converted = _typed(value, bare(hint), key, otherwise)
    if not is_within(converted, bounds):
        raise SettingsError(key, "", f"expected {bounds_text(bounds)}{otherwise}, received {value!r}")
    return converted


def _typed(value: Any, hint: Any, key: str, otherwise: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _of_union(value, hint, key)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        items = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        if len(items) == len(value):
            return tuple(convert(item, kind, f"{key}[{i}]") for i, (item, kind) in enumerate(zip(value, items, strict=True)))
    elif origin is dict and isinstance(value, Mapping):
        return {name: convert(item, arguments[1], join(key, name)) for name, item in value.items()}
    elif is_dataclass_type(hint):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return build(hint, value, key)
    elif hint is Path and isinstance(value, str):
        return Path(value).expanduser()
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= sys.float_info.max:
            return float(value)
        raise SettingsError(key, "", f"expected a finite number{otherwise}, received {value!r}")
    elif isinstance(hint, type) and origin is None and isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value
    raise SettingsError(key, "", f"expected {describe(hint)}{otherwise}, received {value!r}{kind_of(value)}")


def _of_union(value: Any, hint: Any, key: str) -> Any:
    arms = [arm for arm in typing.get_args(hint) if arm is not types.NoneType]
    is_optional = len(arms) < len(typing.get_args(hint))
    if value in (None, NONE) and is_optional:
        return None
    if len(arms) == 1:
        return convert(value, arms[0], key, f" or {NONE}")
    for arm in arms:
        try:
            return convert(value, arm, key)
        except SettingsError:
            continue
    raise SettingsError(key, "", f"expected {describe(hint)}, received {value!r}{kind_of(value)}")


def _field_value(field: SettingField, value: Any, key: str) -> Any:
    try:
        return convert(value, field.hint, key)
    except SettingsError as error:
        if field.is_secret:
            raise SettingsError(key, "", f"expected {describe(field.hint)}, received a value that is not shown here") from None
        raise error


def _split(message: str, fields: Mapping[str, SettingField]) -> tuple[str, str]:
    """Return key and problem of a message that begins with a field's name; no key where it does not."""
    key, _, problem = message.partition(": ")
    return (key, problem) if problem and re.split(r"[.\[]", key)[0] in fields else ("", message)
