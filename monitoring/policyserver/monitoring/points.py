"""Points in columns: a batch of one measurement, one array or list for each field."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from policyserver.monitoring import clock, schema
from policyserver.monitoring.schema import TAG_UNSET, FieldType, Measurement

Column = np.ndarray | Sequence[Any]


class Points:
    """A batch of n points of one measurement.

    Sinks convert the columns later, on their own threads: don't change arrays and lists that were handed in.
    """

    __slots__ = ("columns", "schema", "tag_columns", "tags", "times_ns")

    def __init__(
        self,
        measurement: str | Measurement,
        tags: Mapping[str, str],
        columns: Mapping[str, Column],
        times_ns: np.ndarray | None = None,
        tag_columns: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Put columns together.

        Args:
            measurement: Name of a measurement in `policyserver.monitoring.schema`, or a declaration.
            tags: Tags that all points share.
            columns: n values of each field; None, and NaN in a float field, means unset.
            times_ns: n timestamps, int64 nanoseconds since 1970 (UTC). Default: allotted now, strictly increasing.
            tag_columns: n values of each tag that differs from point to point.

        Raises:
            ValueError: The measurement, a tag or a field is unknown; there is no field; columns differ in length.
        """
        self.schema = schema.measurement(measurement) if isinstance(measurement, str) else measurement
        self.tags = tags
        self.columns = columns
        self.tag_columns = tag_columns or {}
        for kind, names, known in (("field", columns, self.schema.types), ("tag", {**tags, **self.tag_columns}, self.schema.tags)):
            for name in names:
                if name not in known:
                    raise ValueError(f"{self.measurement}: expected {kind}s among {', '.join(known)}, received {kind} {name!r}")
        if not columns:
            raise ValueError(f"columns: expected at least one field of {self.measurement}, received none")
        count = len(next(iter(columns.values())))
        self.times_ns = clock.stamp(count) if times_ns is None else times_ns
        for name, column in (*columns.items(), *self.tag_columns.items(), ("times_ns", self.times_ns)):
            if len(column) != count:
                raise ValueError(f"{self.measurement}.{name}: expected {count} values like the other columns, received {len(column)}")

    @classmethod
    def one(cls, measurement: str, tags: Mapping[str, str], fields: Mapping[str, Any]) -> Points:
        """Make a single point, stamped now."""
        return cls(measurement, tags, {name: (value,) for name, value in fields.items()})

    def __len__(self) -> int:
        return len(self.times_ns)

    @property
    def measurement(self) -> str:
        """Name of the batch's measurement."""
        return self.schema.name

    def tag_values(self, tag: str) -> str | list[str]:
        """Return a tag's value for the whole batch, or its n values."""
        column = self.tag_columns.get(tag)
        if column is None:
            return encodable(self.tags.get(tag, "")) or TAG_UNSET
        return [encodable(value) or TAG_UNSET for value in column]

    def field_values(self, name: str) -> list[Any]:
        """Return n values of a field as Python objects of its declared type, None where it is unset.

        Raises:
            ValueError: A value can't be one of that type.
        """
        column = self.columns[name]
        kind = self.schema.types[name]
        values = column.tolist() if isinstance(column, np.ndarray) else column
        try:
            try:
                return _whole_column(values, kind)
            except TypeError:  # None among them, or values that need a closer look
                return [None if value is None else CONVERT[kind](value) for value in values]
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{self.measurement}.{name}: expected {kind.value} values, received {column!r:.200} ({error})") from error


def _float(value: Any) -> float | None:
    """Convert to a float, or to None what no database stores: NaN and infinity."""
    number = float(value)
    return number if number - number == 0.0 else None


def _integer(value: Any) -> int:
    """Convert a whole number."""
    number = int(value)
    if number != value or not -(2**63) <= number < 2**63:
        raise ValueError(f"{value!r} is not a whole number of 64 bits")
    return number


def encodable(value: Any) -> str:
    """Convert to text that UTF-8 can express."""
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


CONVERT: Mapping[FieldType, Callable[[Any], Any]] = {
    FieldType.FLOAT: _float,
    FieldType.INTEGER: _integer,
    FieldType.BOOLEAN: bool,
    FieldType.STRING: encodable,
}
"""How a set value becomes one of its field's type; TypeError or ValueError if it can't."""


def _whole_column(values: Sequence[Any], kind: FieldType) -> list[Any]:
    """Convert a column of ordinary values without looking at each in Python; TypeError if one isn't ordinary."""
    if kind is FieldType.FLOAT:
        floats = [*map(float, values)]
        total = sum(floats)
        if total - total == 0.0:  # only if none is infinite or NaN
            return floats
    elif kind is FieldType.INTEGER:
        integers = [*map(operator.index, values)]
        if not integers or (min(integers) >= -(2**63) and max(integers) < 2**63):
            return integers
    elif kind is FieldType.STRING and "".join(values).isascii():
        return [*values]
    raise TypeError("not ordinary")
