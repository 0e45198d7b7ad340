"""What a settings dataclass declares: its fields, their types, defaults and docstrings, read once per class."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import textwrap
import threading
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from policyserver.common.bounds import bare, bounds_of, bounds_text

NONE = "none"
"""Stands for None in files and options: TOML has no null."""

_parsing = threading.Lock()
"""Python 3.11 can't make two syntax trees at the same time: a switch of threads within one raises SystemError in either."""


@dataclasses.dataclass(frozen=True)
class SettingField:
    """One declared field: its type with its bounds, and its default (MISSING if it has none)."""

    name: str
    hint: Any
    default: Any
    owner: type
    is_secret: bool
    """Whether its value is left out of every text, as `repr=False` says."""

    @property
    def is_required(self) -> bool:
        """Whether a value must be given."""
        return self.default is dataclasses.MISSING

    @property
    def section(self) -> Any:
        """X where the field is a table of its own, X or X | None with a dataclass X, else None."""
        arms = _arms(self.hint)
        return bare(arms[0]) if len(arms) == 1 and is_dataclass_type(bare(arms[0])) else None

    @property
    def bounds(self) -> str:
        """The bounds in words; empty without."""
        arms = _arms(self.hint)
        return bounds_text(bounds_of(arms[0])) if len(arms) == 1 else ""

    @property
    def doc(self) -> str:
        """The docstring under the field, or else the first line of its table's."""
        return _docstrings(self.owner).get(self.name, "") or (summary(self.section) if self.section is not None else "")


@functools.cache
def fields_of(cls: Any) -> dict[str, SettingField]:
    """Return the fields of a dataclass that its constructor takes, by name."""
    hints = typing.get_type_hints(cls, include_extras=True)
    declared = {}
    for field in dataclasses.fields(cls):
        if field.init:
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            declared[field.name] = SettingField(field.name, hints[field.name], default, cls, not field.repr)
    return declared


@functools.cache
def _docstrings(cls: type) -> dict[str, str]:
    """Read the string under each annotated name of the class and of its bases; nothing where the source is not at hand."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            with _parsing:
                body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
        except (OSError, TypeError, SyntaxError):
            continue
        for statement, follower in itertools.pairwise(body):
            match statement, follower:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def walk(cls: type, prefix: str = "", defaults: Any = None) -> Iterator[tuple[str, SettingField]]:
    """Yield the dotted key and the field of every table and every setting below a dataclass, in the order of declaration.

    Args:
        cls: The dataclass.
        prefix: Its own dotted key.
        defaults: The instance that is its default; None: the defaults of its fields.
    """
    for declared in fields_of(cls).values():
        field = declared if defaults is None else dataclasses.replace(declared, default=getattr(defaults, declared.name))
        key = join(prefix, field.name)
        yield key, field
        if field.section is not None:
            yield from walk(field.section, key, None if field.is_required else field.default)


def _arms(hint: Any) -> list[Any]:
    """Return the types of a union but None, or the one type."""
    return [arm for arm in typing.get_args(hint) if arm is not types.NoneType] if _is_union(hint) else [hint]


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
    return ".".join(part for part in (prefix, name) if part)


def nearest(key: str, known: Sequence[str]) -> list[str]:
    """Return up to three known dotted keys that are spelt like an unknown one, or else end as it does."""
    return (
        difflib.get_close_matches(key, known, n=3) or [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]][:3]
    )


def kind_of(value: Any) -> str:
    """Name a received value's type in TOML's words, in brackets."""
    names = {str: "a string", bool: "a boolean", int: "an integer", float: "a float", list: "an array", tuple: "an array", dict: "a table"}
    return f" ({names.get(type(value), type(value).__name__)})"


def describe(hint: Any) -> str:
    """Name a type in the words of an error message or of a help text, without its bounds."""
    hint = bare(hint)
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
