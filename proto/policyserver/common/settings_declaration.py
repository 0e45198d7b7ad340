"""What a settings dataclass declares: its fields, their types, defaults and docstrings, read once per class."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union

__all__ = [
    "NONE",
    "SettingField",
    "describe",
    "fields_of",
    "is_dataclass_type",
    "join",
    "kind_of",
    "nearest",
    "repeated_dataclass",
    "summary",
    "walk",
]

NONE = "none"
"""Stands for None in files and options: TOML has no null."""


@dataclasses.dataclass(frozen=True)
class SettingField:
    """One declared field: its type, its default (MISSING if it has none) and the docstring under it."""

    name: str
    hint: Any
    default: Any
    help: str
    owner: type


@functools.cache
def fields_of(cls: Any) -> dict[str, SettingField]:
    """Return the fields of a dataclass that its constructor takes, by name."""
    hints = typing.get_type_hints(cls)
    helps = _docstrings(cls)
    declared = {}
    for field in dataclasses.fields(cls):
        if field.init:
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            declared[field.name] = SettingField(field.name, hints[field.name], default, helps.get(field.name, ""), cls)
    return declared


def _docstrings(cls: type) -> dict[str, str]:
    """Read the string under each annotated name of the class and of its bases; nothing where the source is not at hand."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
        except (OSError, TypeError, SyntaxError):
            continue
        for statement, follower in itertools.pairwise(body):
            match statement, follower:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def walk(cls: type, prefix: str) -> Iterator[tuple[str, SettingField]]:
    """Yield the dotted key and the field of every leaf below a dataclass, in the order of declaration."""
    for field in fields_of(cls).values():
        key = join(prefix, field.name)
        inner = _section_of(field.hint)
        if inner is not None:
            yield from walk(inner, key)
        else:
            yield key, field


def _section_of(hint: Any) -> Any:
    """Return X where the field is a section, X or X | None with a dataclass X, else None."""
    candidates = [arm for arm in typing.get_args(hint) if arm is not types.NoneType] if _is_union(hint) else [hint]
    return candidates[0] if len(candidates) == 1 and is_dataclass_type(candidates[0]) else None


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def is_dataclass_type(hint: Any) -> bool:
    """Tell whether a hint is a dataclass."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def repeated_dataclass(hint: Any) -> Any:
    """Return X for tuple[X, ...] with a dataclass X, else None."""
    arguments = typing.get_args(hint)
    return arguments[0] if typing.get_origin(hint) is tuple and is_dataclass_type(arguments[0]) else None


def summary(cls: type) -> str:
    """Return the first line of a class's docstring."""
    return (inspect.getdoc(cls) or cls.__name__).partition("\n")[0]


def join(prefix: str, name: str) -> str:
    """Return the dotted key of a name below a section."""
    return f"{prefix}.{name}" if prefix else name


def nearest(key: str, known: Sequence[str]) -> list[str]:
    """Return up to three known dotted keys that are spelt much like one that is not, or else end as it does."""
    return (
        difflib.get_close_matches(key, known, n=3) or [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]][:3]
    )


def kind_of(value: Any) -> str:
    """Name a received value's type in TOML's words, in brackets."""
    names = {str: "a string", bool: "a boolean", int: "an integer", float: "a float", list: "an array", dict: "a table"}
    return f" ({names.get(type(value), type(value).__name__)})"


def describe(hint: Any) -> str:
    """Name a type in the words of an error message or of a help text."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_union(hint):
        return "|".join(NONE if arm is types.NoneType else describe(arm) for arm in arguments)
    if origin is Literal:
        return "|".join(str(choice) for choice in arguments)
    if origin is tuple:
        return f"[{describe(arguments[0])}, ...]" if arguments[-1] is Ellipsis else f"[{', '.join(map(describe, arguments))}]"
    if origin is dict or is_dataclass_type(hint):
        return "table"
    return {Path: "path", Any: "value"}.get(hint, getattr(hint, "__name__", str(hint)))
