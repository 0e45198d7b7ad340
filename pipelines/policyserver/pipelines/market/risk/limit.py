"""What a limit on risk is: a question that is asked of every order before the broker gets it, and of what a fill would open.

A limit never hinders what it is there for: an order that does nothing but reduce its symbol's position passes every limit on positions and
losses. A limit on when, how often or at which price orders are given says itself whether such orders are exempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.execution.opening import Opening
from policyserver.pipelines.market.schemes.scheme import Scheme, Shape, View


@dataclass(frozen=True, slots=True, eq=False)
class Proposed:
    """Orders that a row wants to give at the close of its last bar, one each of m rows."""

    rows: IntArray
    """Rows, int64 (m,)."""
    symbol: IntArray
    """Numbers of the symbols, int64 (m,)."""
    kind: IntArray
    """`OrderKind`s, int64 (m,)."""
    quantity: FloatArray
    """Units to buy (positive) or to sell (negative), on the instrument's grid, float64 (m,)."""
    price: FloatArray
    """Limit or stop, float64 (m,); meaningless in other kinds."""
    before: FloatArray
    """Positions if all live orders filled, those apart that may only reduce one (`OrderRequests.reduce_only`), float64 (m, K)."""
    after: FloatArray
    """The same with these orders, those that may only reduce a position apart, float64 (m, K)."""
    reduces: npt.NDArray[np.bool_]
    """Which of them can only make a position smaller, whichever of the live orders fill, bool (m,)."""

    def take(self, places: IntArray) -> Proposed:
        """Return the orders at some places."""
        return Proposed(*(getattr(self, name)[places] for name in self.__slots__))


class RiskLimit(Scheme):
    """A limit. It is asked for all rows at once, in the order in which the rules name the limits; the first that refuses is the reason."""

    __slots__ = ()

    @property
    def label(self) -> str:
        """What it is called in records."""
        return type(self).__name__

    @property
    def named_symbols(self) -> tuple[str, ...]:
        """Symbols that it names; each has to be one of an episode's."""
        return ()

    def refuses(self, state: Any, view: View, orders: Proposed) -> npt.NDArray[np.bool_]:
        """Return which orders it keeps from the broker, bool (m,)."""
        raise NotImplementedError

    def passed(self, state: Any, view: View, orders: Proposed) -> None:
        """Take note of orders that every limit let through to the broker."""

    def room(self, state: Any, view: View, opening: Opening) -> FloatArray:
        """Return how many units fills may open at most, float64 (m,), infinity for any number.

        What is asked here holds when the order fills, at the price and with the equity of then. A limit without this method is asked about
        orders alone.
        """
        raise NotImplementedError


def of_symbols(symbols: tuple[str, ...], chosen: tuple[str, ...], field: str) -> npt.NDArray[np.bool_]:
    """Return which of the symbols of a block are chosen, bool (K,).

    Raises:
        SettingsError: One that is chosen isn't there.
    """
    if unknown := [name for name in chosen if name not in symbols]:
        raise SettingsError(f"rules.risk.{field}", "", f"expected names among {', '.join(symbols)}, received {unknown[0]!r}")
    return np.array([name in chosen for name in symbols])


__all__ = ["Opening", "Proposed", "RiskLimit", "Shape", "View", "of_symbols"]
