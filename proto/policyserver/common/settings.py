"""Settings: one tree of frozen dataclasses, read from TOML, from command-line options, or made in Python.

A component declares its settings as a frozen dataclass that derives from `Config`, with the unit in each name, the bounds in each type and
a docstring under each field:

    @dataclass(frozen=True)
    class EpisodesConfig(Config):
        '''Limits of the episodes.'''

        max_open: Annotated[int, Ge(1)] = 20_000
        '''Episodes open at once; a start beyond it is refused.'''

A program nests them in one root class. From that declaration alone follow the file (`load`), the options with their help
(`add_arguments`, `from_arguments`), the documented default file (`dump_toml`) and the reference of the site. Every mistake is a
`SettingsError` that names where the value came from, the dotted key, what was expected and what was received.

Types a field may have: str, int, float (finite), bool, Path, Literal, X | None, tuple[X, ...], tuple[X, Y], dict[str, X], Any, another
dataclass, and Annotated[X, ...] with Ge, Gt, Le, Lt or Interval of annotated_types. TOML has no null: the string "none" stands for None
where a field is optional.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, Union

from policyserver.common.bounds import bare
from policyserver.common.settings_declaration import NONE, describe, nearest, repeated_dataclass, walk
from policyserver.common.settings_toml import dump_toml, format_value
from policyserver.common.settings_values import Config, SettingsError, UnknownKeyError, build, convert

__all__ = [
    "Config",
    "Mended",
    "SettingsError",
    "add_arguments",
    "build",
    "dump_toml",
    "format_value",
    "from_arguments",
    "from_table",
    "known_keys",
    "load",
    "load_mended",
    "reason_of",
]

T = TypeVar("T")


def known_keys(cls: type) -> list[str]:
    """Return the dotted key of every setting, in the order of declaration."""
    return [key for key, field in walk(cls) if field.section is None]


def load(cls: type[T], path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> T:
    """Build the settings from defaults, then a TOML file, then overrides.

    Args:
        cls: The root dataclass.
        path: The file; None takes the defaults.
        overrides: Dotted key to value, stronger than the file. A key may reach inside a `dict[str, X]` field.

    Raises:
        SettingsError: The file cannot be read, or a key is unknown, missing, of the wrong type or out of its bounds.
    """
    given = overrides or {}
    return _build(cls, _with_options(_read(path) if path else {}, given), _sources(path, given))


@dataclasses.dataclass(frozen=True)
class Mended(Generic[T]):
    """Settings of which some could not be used."""

    settings: T
    """With the default in place of each value that can't be used."""
    faults: tuple[SettingsError, ...]
    """What is wrong, each by itself. One after the first may follow from a default that stands in place of a value before it."""
    replaced: frozenset[str]
    """Dotted keys of what may have been meant otherwise than it is here; "" stands for all."""

    def is_replaced(self, key: str) -> bool:
        """Whether a setting may have been meant otherwise, or one in its table, or the table that it is in."""
        return any(not one or one == key or one.startswith(f"{key}.") or key.startswith(f"{one}.") for one in self.replaced)


def load_mended(cls: type[T], path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Mended[T]:
    """Build the settings as `load` does, but go on without what can't be used, to tell all that is wrong.

    Raises:
        SettingsError: The defaults alone are no settings.
    """
    given = overrides or {}
    faults: list[SettingsError] = []
    replaced: set[str] = set()
    try:
        table = _read(path) if path else {}
    except SettingsError as error:
        table = {}
        faults.append(error)
        replaced.update(known_keys(cls))
        replaced.difference_update(given)
    _with_options(table, copy.deepcopy(dict(given)))
    while True:
        try:
            return Mended(_build(cls, table, _sources(path, given)), tuple(faults), frozenset(replaced))
        except SettingsError as error:
            if not table:
                raise
            faults.append(error)
            taken = _take_out(table, error.key)
            replaced.update((isinstance(error, UnknownKeyError) and _known_near(cls, error.key)) or [taken])


def _sources(path: Path | None, given: Mapping[str, Any]) -> Callable[[str], str]:
    """Return what says of a dotted key where its value came from."""

    def source_of(key: str) -> str:
        is_option = any(key == option or key.startswith((f"{option}.", f"{option}[")) or option.startswith(f"{key}.") for option in given)
        return "option" if is_option else str(path) if path else "default"

    return source_of


def from_table(cls: type[T], table: Mapping[str, Any], source: str) -> T:
    """Build the settings from values that were read elsewhere.

    Args:
        cls: The root dataclass.
        table: Field to value.
        source: Where they were read, for errors.

    Raises:
        SettingsError: A key is unknown, missing, of the wrong type or out of its bounds.
    """
    return _build(cls, table, lambda _: source)


def _build(cls: type[T], table: Mapping[str, Any], source_of: Callable[[str], str]) -> T:
    try:
        return typing.cast(T, build(cls, table, ""))
    except UnknownKeyError as error:
        near = _known_near(cls, error.key)
        problem = f"unknown key; did you mean {' or '.join(map(repr, near))}?" if near else error.problem
        raise UnknownKeyError(error.key, source_of(error.key), problem) from error
    except SettingsError as error:
        raise SettingsError(error.key, source_of(error.key), error.problem) from error


def _known_near(cls: type, unknown: str) -> list[str]:
    """Return the dotted keys that an unknown one may have meant."""
    return nearest(unknown, [key for key, _ in walk(cls) if not unknown.startswith(f"{key}.")])


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError("", str(path), f"expected a readable file: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("", str(path), f"expected TOML: {error}") from error


def _with_options(table: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put options, by dotted key, into a table; returns it."""
    for key, value in given.items():
        *sections, name = key.split(".")
        place = table
        for section in sections:
            below = place.get(section)
            if not isinstance(below, dict):
                below = place[section] = {}
            place = below
        place[name] = value
    return table


def _take_out(table: dict[str, Any], key: str) -> str:
    """Remove what a dotted key names, or the nearest table above it that is there, or all; returns the key of what is gone."""
    found: Any = table
    there: list[tuple[dict[str, Any], str]] = []
    for part in key.partition("[")[0].split("."):
        if not isinstance(found, dict) or part not in found:
            break
        there.append((found, part))
        found = found[part]
    if not there:
        table.clear()
        return ""
    holder, name = there[-1]
    del holder[name]
    return ".".join(part for _, part in there)


# --- options --------------------------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add one option `--section.field` for each key, its help taken from the docstring under the field, its bounds and its default.

    Tables that repeat (`tuple[<dataclass>, ...]`) have no option: they belong in the file.
    """
    groups = {"": parser.add_argument_group("settings")}
    for key, field in walk(cls):
        if field.section is not None:
            groups[key] = parser.add_argument_group(f"[{key}]", field.doc)
        elif not repeated_dataclass(field.hint):
            default = "" if field.is_required else f"default: {_option_text(field.default)}"
            facts = "; ".join(fact for fact in (field.bounds, default) if fact)
            groups[key.rpartition(".")[0]].add_argument(
                f"--{key}",
                dest=key,
                type=functools.partial(_parse_option, field.hint),
                default=argparse.SUPPRESS,
                metavar=describe(field.hint),
                help=(f"{field.doc} ({facts})" if facts else field.doc).replace("%", "%%"),
            )


def from_arguments(cls: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options that were given, as overrides for `load`."""
    given = vars(arguments)
    return {key: given[key] for key in known_keys(cls) if key in given}


def _parse_option(hint: Any, text: str) -> Any:
    """Read an option's text: plain words for strings and paths, `a,b` or TOML for arrays, TOML for the rest."""
    try:
        value = _option_value(hint, text)
        convert(value, hint, "")
    except (SettingsError, tomllib.TOMLDecodeError) as error:
        problem = error.problem if isinstance(error, SettingsError) else f"expected {describe(hint)}, received {text!r}"
        raise argparse.ArgumentTypeError(problem) from error
    return value


def _option_value(hint: Any, text: str) -> Any:
    hint = bare(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if text == NONE:
            return text
        arms = [arm for arm in arguments if arm is not types.NoneType]
        return _option_value(arms[0] if len(arms) == 1 else Any, text)
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


def _option_text(value: Any) -> str:
    return NONE if value is None else str(value) if isinstance(value, str | Path) else format_value(value)


def reason_of(error: BaseException) -> str:
    """Return an error's text for the command line: an OSError of our own wording comes without its number."""
    return error.strerror if isinstance(error, OSError) and error.strerror and error.filename is None else str(error)
