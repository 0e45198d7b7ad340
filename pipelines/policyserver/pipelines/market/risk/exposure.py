"""Limits on what is held: of a symbol, of all of them, of a group.

An order is refused if, with all live orders filled at the last prices, it would raise the exposure beyond its limit. Prices move until it
fills, so what a fill opens is bounded once more, then at the fill's price and with its costs; the rest of the order is cancelled. So a row
never passes a limit by what it opens. The market may carry it beyond; from then on it can only go back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.risk.limit import Opening, Proposed, RiskLimit, Shape, View, of_symbols

Mask = npt.NDArray[np.bool_]

_ROUNDING = 1e-9
"""Fraction by which a projected exposure may exceed its limit: what rounding can make of it."""


@dataclass(frozen=True, slots=True)
class MaxPosition(RiskLimit):
    """The position of a symbol, long or short, in units or as a fraction of the equity."""

    units: Annotated[float, Ge(0)] | None = None
    """Most units; none: any number."""
    fraction: Annotated[float, Interval(ge=0, le=1e3)] | None = None
    """Largest value as a fraction of the equity; none: any."""
    symbols: tuple[str, ...] = ()
    """Symbols that it is about; empty: every one."""

    def _check(self) -> None:
        if self.units is None and self.fraction is None:
            raise ValueError("units: expected a number here or in fraction, received none in both")

    @property
    def named_symbols(self) -> tuple[str, ...]:
        """See `RiskLimit`."""
        return self.symbols

    def new_state(self, shape: Shape) -> Mask:
        """Return which symbols it is about, bool (K,)."""
        return of_symbols(shape.symbols, self.symbols or shape.symbols, "symbols")

    def refuses(self, state: Mask, view: View, orders: Proposed) -> Mask:
        """See `RiskLimit`."""
        each, symbol = np.arange(len(orders.rows)), orders.symbol
        before, after = np.abs(orders.before[each, symbol]), np.abs(orders.after[each, symbol])
        most = self._most(view.accounts.equity[orders.rows], view.accounts.price[orders.rows, symbol])
        return state[symbol] & ~orders.reduces & (after > before) & (after > most * (1 + _ROUNDING))

    def room(self, state: Mask, view: View, opening: Opening) -> FloatArray:
        """See `RiskLimit`."""
        units = np.full(len(opening.rows), math.inf)
        if self.units is not None:
            units = np.maximum(self.units - opening.held, 0.0)
        if self.fraction is not None:
            units = np.minimum(units, opening.within(self.fraction, opening.held * opening.reference))
        return np.where(state[opening.symbol], units, math.inf)

    def _most(self, equity: FloatArray, price: FloatArray) -> FloatArray:
        """Return the units that are allowed, float64 (m,)."""
        most = np.full(len(price), math.inf if self.units is None else self.units)
        return most if self.fraction is None else np.minimum(most, self.fraction * np.maximum(equity, 0.0) / price)


def _gross(values: FloatArray) -> FloatArray:
    total: FloatArray = np.abs(values).sum(axis=-1)
    return total


def _net(values: FloatArray) -> FloatArray:
    total: FloatArray = np.abs(values.sum(axis=-1))
    return total


class _Exposure(RiskLimit):
    """Several positions together, as a fraction of the equity."""

    __slots__ = ()

    def _fraction(self) -> float:
        raise NotImplementedError

    def _is_net(self) -> bool:
        raise NotImplementedError

    def new_state(self, shape: Shape) -> Mask:
        """Return which symbols it is about, bool (K,)."""
        return np.ones(shape.n_symbols, dtype=np.bool_)

    def refuses(self, state: Mask, view: View, orders: Proposed) -> Mask:
        """See `RiskLimit`."""
        accounts, measure = view.accounts, _net if self._is_net() else _gross
        price = accounts.price[orders.rows] * state
        before, after = measure(orders.before * price), measure(orders.after * price)
        allowed = self._fraction() * np.maximum(accounts.equity[orders.rows], 0.0)
        return ~orders.reduces & (after > before * (1 + _ROUNDING)) & (after > allowed * (1 + _ROUNDING))

    def room(self, state: Mask, view: View, opening: Opening) -> FloatArray:
        """See `RiskLimit`."""
        accounts = view.accounts
        others = accounts.position[opening.rows] * accounts.price[opening.rows] * state
        others[np.arange(len(opening.rows)), opening.symbol] = 0.0
        exposure = opening.side * others.sum(axis=1) if self._is_net() else _gross(others)
        units = opening.within(self._fraction(), exposure + opening.held * opening.reference)
        return np.where(state[opening.symbol], units, math.inf)


@dataclass(frozen=True, slots=True)
class GrossExposure(_Exposure):
    """The values of all positions added up, shorts as positive ones, as a fraction of the equity."""

    fraction: Annotated[float, Interval(ge=0, le=1e3)] = 1.0
    """Largest one."""

    def _fraction(self) -> float:
        return self.fraction

    def _is_net(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class NetExposure(_Exposure):
    """The value of all positions, shorts as negative ones, as a fraction of the equity, whatever its sign.

    An order that only reduces a position passes, although the net exposure of what is left may be larger: a hedge can be closed.
    """

    fraction: Annotated[float, Interval(ge=0, le=1e3)] = 1.0
    """Largest one."""

    def _fraction(self) -> float:
        return self.fraction

    def _is_net(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class GroupExposure(_Exposure):
    """The exposure of a group of symbols, such as a sector, as a fraction of the equity."""

    group: str
    """Name of the group, in records."""
    symbols: tuple[str, ...]
    """Symbols of the group."""
    fraction: Annotated[float, Interval(ge=0, le=1e3)] = 1.0
    """Largest exposure."""
    measure: Literal["gross", "net"] = "gross"
    """Whether shorts add to the exposure, as in `gross_exposure`, or take from it, as in `net_exposure`."""

    def _check(self) -> None:
        if not self.symbols:
            raise ValueError("symbols: expected at least one, received none")

    @property
    def label(self) -> str:
        """See `RiskLimit`."""
        return f"GroupExposure {self.group}"

    @property
    def named_symbols(self) -> tuple[str, ...]:
        """See `RiskLimit`."""
        return self.symbols

    def new_state(self, shape: Shape) -> Mask:
        """Return which symbols it is about, bool (K,)."""
        return of_symbols(shape.symbols, self.symbols, "symbols")

    def _fraction(self) -> float:
        return self.fraction

    def _is_net(self) -> bool:
        return self.measure == "net"
