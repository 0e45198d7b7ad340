"""Points as InfluxDB line protocol, a line for each, encoded column by column.

What the protocol can't express is replaced: a line break in a text by a space, a backslash in a tag by a slash. A point without a set field
has no line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from policyserver.monitoring.points import CONVERT, Points, encodable
from policyserver.monitoring.schema import MEASUREMENTS, TAG_UNSET, TAGS, FieldType
from policyserver.monitoring.store.rollups import ROLLUPS

_TAG_ESCAPES = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ ", "\n": "\\ ", "\r": "\\ ", "\\": "/"})
_STRING_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": " ", "\r": " "})
_STRING_SPECIAL = re.compile(r'[\\"\n\r]')


def _quoted(value: str) -> str:
    return f'"{value.translate(_STRING_ESCAPES)}"' if _STRING_SPECIAL.search(value) else f'"{value}"'


_FORMATS: dict[FieldType, tuple[str, Callable[[Any], str] | None]] = {
    FieldType.FLOAT: ("%r", None),
    FieldType.INTEGER: ("%di", None),
    FieldType.BOOLEAN: ("%s", {True: "true", False: "false"}.__getitem__),
    FieldType.STRING: ("%s", _quoted),
}
"""How a value of a field's type is written: a template, and what makes the template's argument of the value."""


@lru_cache(maxsize=4096)  # tags are few-valued
def _escaped(tag_value: str) -> str:
    return (encodable(tag_value) or TAG_UNSET).translate(_TAG_ESCAPES)


def tag_suffix(tags: Mapping[str, str]) -> str:
    """Encode further tags of every line, for `encode`.

    Raises:
        ValueError: A tag lacks a name or a value, or has the name of a recorded tag or field.
    """
    for name, value in tags.items():
        if not name or not value or name == "time" or name.startswith("_"):
            raise ValueError(f"tags: expected values, and names other than `time` that don't begin with _, received {name!r} = {value!r}")
        if name in TAGS or any(name in each.types for each in (MEASUREMENTS | ROLLUPS).values()):
            raise ValueError(f"tags: expected names that no recorded tag or field has (docs/metrics.md), received {name!r}")
    return "".join(f",{name.translate(_TAG_ESCAPES)}={_escaped(value)}" for name, value in tags.items())


def encode(points: Points, more_tags: str = "") -> bytes:
    """Encode a batch, each line ended by a line break, with further tags of `tag_suffix`.

    Raises:
        ValueError: A value can't be one of its field's declared type.
    """
    if len(points) == 1:
        try:
            return _encode_one(points, more_tags)
        except (TypeError, ValueError, OverflowError):  # the columns take a closer look, and their error names the value
            pass
    return _encode_columns(points, more_tags)


def _encode_one(points: Points, more_tags: str) -> bytes:
    """Encode a single point of ordinary values, several times faster than columns of one value each."""
    key = points.measurement + more_tags
    for tag in points.schema.tags:
        tag_values = points.tag_columns.get(tag)
        key += f",{tag}={_escaped(str(points.tags.get(tag, '') if tag_values is None else tag_values[0]))}"
    types, fields = points.schema.types, []
    for name, column in points.columns.items():
        kind = types[name]
        if column[0] is not None and (value := CONVERT[kind](column[0])) is not None:
            template, convert = _FORMATS[kind]
            fields.append(f"{name}={convert(value) if convert else template % value}")
    return f"{key} {','.join(fields)} {points.times_ns[0]}\n".encode() if fields else b""


def _encode_columns(points: Points, more_tags: str) -> bytes:
    """Encode a batch field by field."""
    key, arguments = _series_key(points, more_tags)
    always: list[str] = []
    sometimes: list[list[str]] = []
    for name in points.columns:
        template, convert = _FORMATS[points.schema.types[name]]
        values = points.field_values(name)
        if convert:
            values = [None if value is None else convert(value) for value in values]
        if None in values:
            sometimes.append(["" if value is None else f",{name}={template % value}" for value in values])
        else:
            always.append(f"{name}={template}")
            arguments.append(values)
    times = points.times_ns.tolist()
    if not always:
        return _encode_sparse(key, arguments, sometimes, times)
    line = f"{key} {','.join(always)}{'%s' * len(sometimes)} %d\n"
    return "".join([line % row for row in zip(*arguments, *sometimes, times, strict=True)]).encode()


def _series_key(points: Points, more_tags: str) -> tuple[str, list[list[Any]]]:
    """Return the template of measurement and tags, and the columns that it takes."""
    arguments: list[list[Any]] = []
    key = points.measurement + more_tags.replace("%", "%%")
    for tag in points.schema.tags:
        values = points.tag_values(tag)
        if isinstance(values, str):
            key += f",{tag}={values.translate(_TAG_ESCAPES).replace('%', '%%')}"
        else:
            key += f",{tag}=%s"
            arguments.append([value.translate(_TAG_ESCAPES) for value in values])
    return key, arguments


def _encode_sparse(key: str, arguments: list[list[Any]], sometimes: list[list[str]], times: list[int]) -> bytes:
    """Encode a batch in which every field is unset in some point."""
    lines = []
    tags = zip(*arguments, strict=True) if arguments else [()] * len(times)
    for values, fields, time_ns in zip(tags, zip(*sometimes, strict=True), times, strict=True):
        if text := "".join(fields):
            lines.append(f"{key % values} {text[1:]} {time_ns}\n")
    return "".join(lines).encode()
