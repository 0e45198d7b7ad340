"""Settings: one tree of frozen dataclasses, read from TOML and from command-line options.

A component declares its settings as a frozen dataclass, with the unit in each name and a docstring under each field:

    @dataclass(frozen=True)
    class EpisodesConfig:
        '''Limits of the episodes.'''

        max_open: int = 20_000
        '''Episodes open at once; a start beyond it is refused.'''

        def __post_init__(self) -> None:
            if self.max_open < 1:
                raise ValueError(f"max_open: expected at least 1, received {self.max_open}")

A program nests them in one root class. From that declaration alone follow the file (`load`), the options with their help
(`add_arguments`, `from_arguments`) and the documented default file (`dump_toml`). Every mistake is a `SettingsError` that names the
dotted key, where it was read, what was expected and what came.

Types a field may have: str, int, float, bool, Path, Literal, X | None, tuple[X, ...], tuple[X, Y], dict[str, X], Any, another dataclass.
TOML has no null: the string "none" stands for None where a field is optional.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from policyserver.common.settings_declaration import (
    NONE,
    describe,
    fields_of,
    is_dataclass_type,
    join,
    kind_of,
    nearest,
    repeated_dataclass,
    summary,
    walk,
)

__all__ = ["SettingsError", "add_arguments", "dump_toml", "from_arguments", "known_keys", "load", "option_text", "reason_of"]

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting that cannot be used.

    Attributes:
        key: The dotted key at fault, empty when the file as a whole is.
        source: The file or the option that it came from.
        problem: What was expected and what came.
    """

    def __init__(self, key: str, source: str, problem: str) -> None:
        super().__init__(": ".join(part for part in (source, key, problem) if part))
        self.key = key
        self.source = source
        self.problem = problem

    def __reduce__(self) -> tuple[type[SettingsError], tuple[str, str, str]]:
        """Pickle by the three parts, since the message alone does not rebuild them."""
        return type(self), (self.key, self.source, self.problem)


def load(cls: type[T], path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> T:
    """Build the settings from defaults, then a TOML file, then overrides.

    Args:
        cls: The root dataclass.
        path: The file; None takes the defaults.
        overrides: Dotted key to value, stronger than the file. A key may reach inside a `dict[str, X]` field.

    Raises:
        SettingsError: The file cannot be read, or a key is unknown, missing, of the wrong type or out of its range.
    """
    overrides = overrides or {}
    table = _read(path) if path else {}
    for key, value in overrides.items():
        _put(table, key, value)
    return typing.cast(T, _Builder(cls, str(path) if path else "", overrides).build(cls, table, ""))


def known_keys(cls: type) -> list[str]:
    """Return every dotted key that a file for this class may hold, in order."""
    return [key for key, _ in walk(cls, "")]


def add_arguments(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add one option `--section.field` for each key, its help taken from the docstring under the field.

    Tables that repeat (`tuple[<dataclass>, ...]`) have no option: they belong in the file.
    """
    groups: dict[str, argparse._ArgumentGroup] = {}
    for key, field in walk(cls, ""):
        if repeated_dataclass(field.hint):
            continue
        section = key.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"[{section}]" if section else "settings", summary(field.owner))
        default = "" if field.default is dataclasses.MISSING else f" (default: {option_text(field.default)})"
        groups[section].add_argument(
            f"--{key}",
            dest=key,
            type=functools.partial(_parse_option, field.hint),
            default=argparse.SUPPRESS,
            metavar=describe(field.hint),
            help=f"{field.help}{default}".replace("%", "%%"),
        )


def from_arguments(cls: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options that were given, as overrides for `load`."""
    given = vars(arguments)
    return {key: given[key] for key in known_keys(cls) if key in given}


def dump_toml(settings: Any, *, comments: bool = False) -> str:
    """Write settings as TOML that `load` reads back to an equal object.

    Args:
        settings: A dataclass instance.
        comments: Put each field's docstring above it, for a file that documents itself.

    Raises:
        ValueError: A free-form table holds None, which TOML cannot say.
    """
    return "\n".join(_dump_table(_rows(settings), "", comments)).strip() + "\n"


# --- values, checked and converted ----------------------------------------------------------------------------------------------------


class _Builder:
    """Turns one raw table into one dataclass tree; knows where each value came from."""

    def __init__(self, root: type, path: str, overrides: Mapping[str, Any]) -> None:
        self._root = root
        self._path = path
        self._overrides = overrides

    def build(self, cls: Any, table: Mapping[str, Any], prefix: str) -> Any:
        fields = fields_of(cls)
        for name in table:
            if name not in fields:
                raise self._unknown(cls, prefix, name)
        missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in table]
        if missing:
            raise self._error(join(prefix, missing[0]), "expected a value, received none")
        values = {name: self.convert(value, fields[name].hint, join(prefix, name)) for name, value in table.items()}
        try:
            return cls(**values)
        except SettingsError:
            raise
        except ValueError as error:
            # A message of __post_init__ begins with the field's name: it becomes the end of the dotted key.
            name, _, problem = str(error).partition(": ")
            key, text = (join(prefix, name), problem) if name.split(".")[0] in fields and problem else (prefix, str(error))
            raise self._error(key, text) from error

    def convert(self, value: Any, hint: Any, key: str) -> Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any:
            return value
        if origin in (Union, types.UnionType):
            return self._convert_union(value, hint, key)
        if origin is Literal:
            if any(value == choice and type(value) is type(choice) for choice in arguments):
                return value
        elif origin is tuple and isinstance(value, list | tuple):
            items = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
            if len(items) == len(value):
                return tuple(self.convert(item, kind, f"{key}[{i}]") for i, (item, kind) in enumerate(zip(value, items, strict=True)))
        elif origin is dict and isinstance(value, Mapping):
            return {name: self.convert(item, arguments[1], join(key, name)) for name, item in value.items()}
        elif is_dataclass_type(hint):
            if isinstance(value, hint):
                return value
            if isinstance(value, Mapping):
                return self.build(hint, value, key)
        elif hint is Path and isinstance(value, str):
            return Path(value).expanduser()
        elif hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        elif isinstance(hint, type) and origin is None and isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
            return value
        raise self._error(key, f"expected {describe(hint)}, received {value!r}{kind_of(value)}")

    def _convert_union(self, value: Any, hint: Any, key: str) -> Any:
        arms = [arm for arm in typing.get_args(hint) if arm is not types.NoneType]
        if value in (None, NONE) and len(arms) < len(typing.get_args(hint)):
            return None
        if len(arms) == 1:
            return self.convert(value, arms[0], key)
        for arm in arms:
            try:
                return self.convert(value, arm, key)
            except SettingsError:
                continue
        raise self._error(key, f"expected {describe(hint)}, received {value!r}{kind_of(value)}")

    def _unknown(self, cls: type, prefix: str, name: str) -> SettingsError:
        key = join(prefix, name)
        here = [join(prefix, known) for known in fields_of(cls)]
        everywhere = list(dict.fromkeys([*here, *known_keys(self._root)]))
        near = nearest(key, everywhere)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known here: {', '.join(here)}"
        return self._error(key, f"unknown key; {hint}")

    def _error(self, key: str, problem: str) -> SettingsError:
        overridden = any(key == given or key.startswith((f"{given}.", f"{given}[")) for given in self._overrides)
        return SettingsError(key, "option" if overridden else self._path, problem)


# --- files and options ----------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError("", str(path), f"expected a readable file: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("", str(path), f"expected TOML: {error}") from error


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        below = table.get(section)
        if not isinstance(below, dict):
            below = table[section] = {}
        table = below
    table[name] = value


def _parse_option(hint: Any, text: str) -> Any:
    """Read an option's text: plain words for strings and paths, `a,b` or TOML for arrays, TOML for the rest."""
    try:
        value = _option_value(hint, text)
        _Builder(type(None), "", {}).convert(value, hint, "")
    except (SettingsError, tomllib.TOMLDecodeError) as error:
        problem = error.problem if isinstance(error, SettingsError) else f"expected {describe(hint)}, received {text!r}"
        raise argparse.ArgumentTypeError(problem) from error
    return value


def _option_value(hint: Any, text: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if text == NONE:
            return text
        arms = [arm for arm in arguments if arm is not types.NoneType]
        hint = arms[0] if len(arms) == 1 else Any
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (str, Path) or (origin is Literal and text in arguments):
        return text
    if origin is tuple and not text.lstrip().startswith("["):
        kinds = (arguments[0],) * len(text.split(",")) if arguments[-1] is Ellipsis else arguments
        return [_option_value(kind, item.strip()) for kind, item in zip(kinds, text.split(","), strict=False)]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if hint is Any:
            return text
        raise


def option_text(value: Any) -> str:
    """Write a value as an option takes it."""
    return NONE if value is None else str(value) if isinstance(value, str | Path) else _format(value)


# --- writing --------------------------------------------------------------------------------------------------------------------------


_Row = tuple[str, Any, str]  # key, value, comment


def _rows(value: Any) -> list[_Row]:
    """List one table's entries; None as it is where that is the default anyway."""
    if not dataclasses.is_dataclass(value):
        return [(str(name), item, "") for name, item in value.items()]
    rows: list[_Row] = []
    cls: Any = type(value)
    for name, field in fields_of(cls).items():
        item = getattr(value, name)
        is_unset = item is None and field.default is None
        rows.append(
            (name, NONE if item is None and not is_unset else item, summary(type(item)) if dataclasses.is_dataclass(item) else field.help)
        )
    return rows


def _dump_table(rows: list[_Row], prefix: str, comments: bool, *, is_declared: bool = True) -> Iterator[str]:
    """Write plain values, then sub-tables, then arrays of tables, as TOML needs them; declared settings that are unset as comments."""
    later: list[tuple[str, Any, str]] = []
    for name, value, comment in rows:
        if value is None and is_declared:  # reads back as what it is without a line
            yield from _comment(f"{comment}\n{_format_key(name)} = {_format(NONE)}", comments)
        elif _is_table(value) or (isinstance(value, tuple | list) and value and all(map(_is_table, value))):
            later.append((join(prefix, _format_key(name)), value, comment))
        else:
            yield from _comment(comment, comments)
            yield f"{_format_key(name)} = {_format(value, join(prefix, name))}"
    for header, value, comment in later:
        for table in [value] if _is_table(value) else value:
            yield ""
            yield from _comment(comment, comments)
            yield f"[{header}]" if _is_table(value) else f"[[{header}]]"
            yield from _dump_table(_rows(table), header, comments, is_declared=dataclasses.is_dataclass(table))


def _comment(text: str, comments: bool) -> Iterator[str]:
    return (f"# {line}" for part in text.splitlines() for line in textwrap.wrap(part, 120)) if comments else iter(())


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _format_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _format(name)


def _format(value: Any, key: str = "") -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return f"[{', '.join(_format(item, key) for item in value)}]"
    if _is_table(value):
        return f"{{{', '.join(f'{_format_key(name)} = {_format(item, key)}' for name, item, _ in _rows(value))}}}"
    raise ValueError(f"{key}: expected a value that TOML can hold, received {value!r}")


def reason_of(error: BaseException) -> str:
    """Return an error's text for the command line: an OSError of our own wording comes without its number."""
    return error.strerror if isinstance(error, OSError) and error.strerror and error.filename is None else str(error)
