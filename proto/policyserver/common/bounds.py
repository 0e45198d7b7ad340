"""Bounds that a field's type declares, such as `Annotated[int, Ge(1)]`: held, and put into words."""

from __future__ import annotations

import operator
import typing
from typing import Annotated, Any

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

_RULES = {Ge: (operator.ge, "at least"), Gt: (operator.gt, "more than"), Le: (operator.le, "at most"), Lt: (operator.lt, "less than")}


def bare(hint: Any) -> Any:
    """Return X for `Annotated[X, ...]`, and any other type as it is."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def bounds_of(hint: Any) -> list[Any]:
    """Return the bounds of `Annotated[X, ...]`, those of an `Interval` one by one; none of any other type."""
    declared = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    return [bound for entry in declared for bound in (entry if isinstance(entry, GroupedMetadata) else [entry])]


def is_within(value: Any, bounds: list[Any]) -> bool:
    """Tell whether a value is within all bounds."""
    return all(_RULES[type(bound)][0](value, _limit(bound)) for bound in bounds)


def bounds_text(bounds: list[Any]) -> str:
    """Put bounds into words: "at least 0 and less than 1"; nothing without bounds."""
    return " and ".join(f"{_RULES[type(bound)][1]} {_number(_limit(bound))}" for bound in bounds)


def _limit(bound: Any) -> float:
    """Return the x of Ge(ge=x), and so on."""
    limit: float = getattr(bound, type(bound).__name__.lower())
    return limit


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
