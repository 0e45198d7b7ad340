"""The part of a fill that opens a position or makes it larger, and how much of it an exposure leaves room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """Fills that are about to be booked, one each of m rows; what of them closes a position is booked in any case."""

    rows: IntArray
    """Rows, int64 (m,)."""
    symbol: IntArray
    """Numbers of the symbols, int64 (m,)."""
    side: FloatArray
    """1 for a purchase, -1 for a sale, float64 (m,)."""
    held: FloatArray
    """Units held already in the direction of the fill, float64 (m,)."""
    reference: FloatArray
    """The market's prices, at which positions are valued, float64 (m,)."""
    worth: FloatArray
    """Equity after what is closed, and after the fee of that, float64 (m,); of the two forms of a fee, see `within`, the minimum. Where a
    fee is a part of the notional alone, the sum is never the smaller one, and this array is that of `worth_with_sum`."""
    worth_with_sum: FloatArray
    """The same with the fee as a sum of its parts, float64 (m,)."""
    cost: FloatArray
    """What a unit costs by the distance of its price from the market's, float64 (m,)."""
    cost_with_sum: FloatArray
    """The same with what a unit adds to the fee, float64 (m,)."""

    def within(self, ratio: float, exposure: FloatArray) -> FloatArray:
        """Return the units after which an exposure is `ratio` times the equity, costs taken off, at least 0, float64 (m,).

        A fee is the larger of its minimum and a sum; the smaller solution of the two is the one of the larger fee.

        Args:
            ratio: Largest exposure over equity.
            exposure: What there is without these units, in cash, float64 (m,); each unit adds its reference price.
        """
        allowed: FloatArray = (ratio * self.worth_with_sum - exposure) / (self.reference + ratio * self.cost_with_sum)
        if self.worth is not self.worth_with_sum:
            with_least = (ratio * self.worth - exposure) / (self.reference + ratio * self.cost)
            allowed = np.minimum(with_least, allowed)
        return np.maximum(0.0, allowed)


class OpeningLimits(Protocol):
    """What bounds the openings of fills, besides the account's leverage."""

    def room(self, opening: Opening) -> tuple[FloatArray, IntArray]:
        """Return how many units may be opened at most, float64 (m,), infinity for any number, and the `Reason` for it, int64 (m,)."""
