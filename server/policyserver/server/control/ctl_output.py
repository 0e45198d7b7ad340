"""How `policy-server ctl` shows an answer: as JSON, or laid out for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Plain = dict[str, Any]
"""A message as JSON has it."""


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
        if isinstance(value, list) and not (value and isinstance(value[0], int)):
            yield f"{indent}{name.replace('_', ' ')}: {len(value)}"
            for each in value:
                entry = each if isinstance(each, dict) else {"": each}
                yield indent + "  " + "   ".join(f"{key.replace('_', ' ')} {_shown(one)}".lstrip() for key, one in _flat(entry))
        elif isinstance(value, dict):
            yield f"{indent}{name.replace('_', ' ')}"
            yield from laid_out(value, indent + "  ")
        else:
            yield f"{indent}{name.replace('_', ' ').ljust(width)}  {_shown(value)}"


def _flat(entry: Plain, above: str = "") -> Iterator[tuple[str, Any]]:
    """Return what an entry of a list has, with the names of what it is in before those of what is in it."""
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name} ")
        else:
            yield f"{above}{name}", value


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else str(value)
