"""How `policy-server ctl` shows an answer: as JSON, or laid out for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Plain = dict[str, Any]
"""A message as JSON has it."""
_TABLES: dict[str, tuple[str, ...]] = {"actors": (), "serving_actors": ("boot_id",)}
"""Lists whose entries are shown below one another, each value under its name; and the values that are left to JSON."""


def plain(message: Any) -> Plain:
    """Return a message as JSON has it: null where a field is unset, the names of enums in lower case without their prefix."""
    values: Plain = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.enum_type is not None:
            prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
            values[field.name] = field.enum_type.values_by_number[value].name.removeprefix(prefix).lower()
        elif hasattr(value, "extend"):
            values[field.name] = [plain(each) if field.message_type is not None else each for each in value]
        elif field.has_presence and not message.HasField(field.name):
            values[field.name] = None
        else:
            values[field.name] = plain(value) if field.message_type is not None else value
    return values


def laid_out(answer: Plain, indent: str = "") -> Iterator[str]:
    """Lay an answer out for a person: a line for each value, a line for each entry of a list."""
    width = max(len(name) for name in answer)
    for name, value in answer.items():
        if isinstance(value, list):
            yield f"{indent}{name.replace('_', ' ')}: {len(value)}{_numbers(value)}"
            yield from (f"{indent}  {line}" for line in (_table(value, _TABLES[name]) if name in _TABLES else _entries(value)))
        elif isinstance(value, dict):
            yield f"{indent}{name.replace('_', ' ')}"
            yield from laid_out(value, indent + "  ")
        else:
            yield f"{indent}{name.replace('_', ' ').ljust(width)}  {_shown(value)}"


def _numbers(values: list[Any]) -> str:
    """Return numbers that a list has, in brackets behind how many there are; nothing for a list of something else."""
    if not values or not isinstance(values[0], int):
        return ""
    return f" (number{'s' if len(values) > 1 else ''} {_shown(values)})"


def _entries(values: list[Any]) -> Iterator[str]:
    """Return a line for each entry of a list, with the names of its values; numbers have been shown already."""
    for each in values:
        if not isinstance(each, int):
            entry = each if isinstance(each, dict) else {"": each}
            yield "   ".join(f"{key.replace('_', ' ')} {_shown(one)}".lstrip() for key, one in _flat(entry))


def _table(entries: list[Plain], without: Sequence[str]) -> Iterator[str]:
    """Return a heading and a line for each entry, its values below their names; what no entry has is left out."""
    if not entries:
        return
    names = [name for name in entries[0] if name not in without and any(entry[name] not in (None, "", []) for entry in entries)]
    columns = [[name.replace("_", " "), *(_shown(entry[name]) for entry in entries)] for name in names]
    is_number = [all(isinstance(entry[name], int | float | None) for entry in entries) for name in names]
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = zip(row, widths, is_number, strict=True)
        yield "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells).rstrip()


def _flat(entry: Plain, above: str = "") -> Iterator[tuple[str, Any]]:
    """Return what an entry of a list has, with the names of what it is in before those of what is in it."""
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name} ")
        else:
            yield f"{above}{name}", value


def _shown(value: Any) -> str:
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else str(value)
