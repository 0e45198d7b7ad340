"""Settings written as TOML: values, and whole files that document themselves."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policyserver.common.settings_declaration import NONE, SettingField, fields_of, join

_Row = tuple[str, Any, str]  # key, value, comment


def dump_toml(settings: Any, *, comments: bool = False) -> str:
    """Write settings as TOML that `load` reads back to an equal object.

    Args:
        settings: A dataclass instance.
        comments: Put each field's docstring and bounds above it, for a file that documents itself.

    Raises:
        ValueError: A free-form table holds None, which TOML cannot say.
    """
    return "\n".join(_dump_table(_rows(settings, comments), "", comments)).strip() + "\n"


def format_value(value: Any, key: str = "") -> str:
    """Write one value as TOML.

    Args:
        value: Anything that a setting may hold.
        key: Its dotted key, for errors.

    Raises:
        ValueError: TOML cannot say it.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return f"[{', '.join(format_value(item, key) for item in value)}]"
    if _is_table(value):
        return f"{{{', '.join(f'{_format_key(name)} = {format_value(item, key)}' for name, item, _ in _rows(value))}}}"
    raise ValueError(f"{key}: expected a value that TOML can hold, received {value!r}")


def _rows(value: Any, comments: bool = False) -> list[_Row]:
    """List one table's entries; None as it is where that is the default anyway, and no comments unless asked for: they parse source."""
    if not dataclasses.is_dataclass(value):
        return [(str(name), item, "") for name, item in value.items()]
    rows: list[_Row] = []
    cls: Any = type(value)
    for name, field in fields_of(cls).items():
        item = getattr(value, name)
        rows.append((name, NONE if item is None and field.default is not None else item, _comment_of(field) if comments else ""))
    return rows


def _comment_of(field: SettingField) -> str:
    return f"{field.doc} ({field.bounds})" if field.bounds else field.doc


def _dump_table(rows: list[_Row], prefix: str, comments: bool, *, is_declared: bool = True) -> Iterator[str]:
    """Write plain values, then sub-tables, then arrays of tables, as TOML needs them; declared settings that are unset as comments."""
    later: list[_Row] = []
    for name, value, comment in rows:
        if value is None and is_declared:  # reads back as what it is without a line
            yield from _comment(f"{comment}\n{_format_key(name)} = {format_value(NONE)}", comments)
        elif _is_table(value) or (isinstance(value, tuple | list) and value and all(map(_is_table, value))):
            later.append((join(prefix, _format_key(name)), value, comment))
        else:
            yield from _comment(comment, comments)
            yield f"{_format_key(name)} = {format_value(value, join(prefix, name))}"
    for header, value, comment in later:
        for table in [value] if _is_table(value) else value:
            yield ""
            yield from _comment(comment, comments)
            yield f"[{header}]" if _is_table(value) else f"[[{header}]]"
            yield from _dump_table(_rows(table, comments), header, comments, is_declared=dataclasses.is_dataclass(table))


def _comment(text: str, comments: bool) -> Iterator[str]:
    return (f"# {line}" for part in text.splitlines() for line in textwrap.wrap(part, 120)) if comments else iter(())


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _format_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else format_value(name)
