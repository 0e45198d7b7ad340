"""A figure of training or serving is declared once: a field of a dataclass with its kind and unit, and its meaning as a docstring below.

    rows_refused: Annotated[int, counter("rows")] = 0

What is recorded, docs/metrics.md, charts of its own and the sum of several serving processes are made of the declaration; the wire, which
says the same to clients in other languages, is held to it by a test.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from policyserver.common.bounds import bare
from policyserver.common.settings_declaration import fields_of


class Kind(StrEnum):
    """How a figure changes, and what several processes have together."""

    COUNTER = "counter"
    """Grows from 0. Together: the sum."""
    GAUGE = "gauge"
    """What there is now. Together: the sum."""
    AMOUNT = "amount"
    """What one iteration took or did. Together: the sum."""
    NEWEST = "newest"
    """Grows, and is the same for all. Together: the largest."""
    MEAN = "mean"
    """Mean of many values. Together: the mean of those that are known, weighted."""
    TEXT = "text"
    """A name. Together: all, joined by "+"."""


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """What a field's annotation declares; the name, the type and the meaning are the field's own."""

    kind: Kind
    unit: str = ""
    """Unit of the value; "" for ratios and names."""
    unset: str = ""
    """Where there is no value; "" when there always is one."""
    chart: str = ""
    """Title of the chart that draws the figure alone, on the page and in Grafana; "" when none does."""
    weight: str = ""
    """Figure by which the means of several processes are weighted; "" when they weigh the same."""

    name: str = ""
    value_type: type = float
    meaning: str = ""
    default: Any = None


counter = functools.partial(Figure, Kind.COUNTER)
gauge = functools.partial(Figure, Kind.GAUGE)
amount = functools.partial(Figure, Kind.AMOUNT)
newest = functools.partial(Figure, Kind.NEWEST)
mean = functools.partial(Figure, Kind.MEAN)
text = functools.partial(Figure, Kind.TEXT)


def figures(cls: Any) -> dict[str, Figure]:
    """Return the figures that a dataclass declares, by name, in the order of declaration."""
    return _figures(cls)


@functools.cache
def _figures(cls: Any) -> dict[str, Figure]:
    declared = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        for figure in getattr(hint, "__metadata__", ()):
            if isinstance(figure, Figure):
                field = fields_of(cls)[name]
                (kind,) = {*(typing.get_args(bare(hint)) or [bare(hint)])} - {types.NoneType}
                declared[name] = dataclasses.replace(figure, name=name, value_type=kind, meaning=field.doc, default=field.default)
    return declared


def phrase(sentence: str) -> str:
    """Return a title, or a sentence, as it stands within a line."""
    first = sentence[:1] if sentence[:2].isupper() else sentence[:1].lower()
    return first + sentence[1:].removesuffix(".")


def charted(statistics: Any) -> dict[str, Any]:
    """Return the values of the figures that have a chart of their own, by its title."""
    return {phrase(figure.chart): getattr(statistics, name) for name, figure in figures(type(statistics)).items() if figure.chart}


def known(statistics: Any) -> dict[str, Any]:
    """Return the figures of an instance that have a value, by name."""
    values = {name: getattr(statistics, name) for name in figures(type(statistics))}
    return {name: value for name, value in values.items() if value is not None}


def merged(statistics: Sequence[Any]) -> dict[str, Any]:
    """Return what several processes have together of each figure."""
    return {name: _together(figure, statistics) for name, figure in figures(type(statistics[0])).items()}


def _together(figure: Figure, statistics: Sequence[Any]) -> Any:
    values = [getattr(one, figure.name) for one in statistics]
    match figure.kind:
        case Kind.TEXT:
            return "+".join(values)
        case Kind.NEWEST:
            return max(values)
        case Kind.MEAN:
            weights = [getattr(one, figure.weight) if figure.weight else 1 for one in statistics]
            pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
            total = sum(weight for _, weight in pairs)
            return sum(value * weight for value, weight in pairs) / total if total else figure.default
        case _:
            return sum(values)
