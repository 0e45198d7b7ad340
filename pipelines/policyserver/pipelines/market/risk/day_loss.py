"""A limit on what is lost in a day."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.intervals import DAY_NS
from policyserver.pipelines.market.risk.limit import Opening, Proposed, RiskLimit, Shape, View
from policyserver.pipelines.market.risk.local_time import local_ns
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.zones import zone_of


@dataclass(slots=True, eq=False)
class _Days:
    """The day that each of n rows is in."""

    day: IntArray
    """Days since 1970."""
    begun_with: FloatArray
    """Equity at the last bar of the day before, or at the episode's start."""
    last_equity: FloatArray
    """Equity at the last bar."""
    is_lost: npt.NDArray[np.bool_]
    """Whether the limit has been reached in this day."""


@dataclass(frozen=True, slots=True)
class DayLoss(RiskLimit):
    """The loss since the close of the day before: once it is reached, nothing is opened until the day is over, whatever is gained back.

    What live orders would open is cancelled, too. A bar that ends at midnight belongs to the day that is over then.
    """

    fraction: Annotated[float, Interval(gt=0, le=1)] = 0.05
    """Loss as a fraction of the equity at the close of the day before."""
    time_zone: str = "UTC"
    """Zone in which days begin: UTC, an offset such as -05:00, or a name such as America/New_York."""

    def _check(self) -> None:
        zone_of(self.time_zone)

    def new_state(self, shape: Shape) -> _Days:
        """Return the days of the rows."""
        n = shape.n_rows
        return _Days(np.zeros(n, dtype=np.int64), np.ones(n), np.ones(n), np.zeros(n, dtype=np.bool_))

    def begin(self, state: _Days, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        state.day[rows] = self._day(view, rows)
        state.begun_with[rows] = state.last_equity[rows] = view.accounts.equity[rows]
        state.is_lost[rows] = False

    def update(self, state: _Days, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        day, equity = self._day(view, rows), view.accounts.equity[rows]
        is_new = day != state.day[rows]
        begun_with = np.where(is_new, state.last_equity[rows], state.begun_with[rows])
        state.is_lost[rows] = (state.is_lost[rows] & ~is_new) | (equity <= (1.0 - self.fraction) * begun_with)
        state.day[rows], state.begun_with[rows], state.last_equity[rows] = day, begun_with, equity

    def refuses(self, state: _Days, view: View, orders: Proposed) -> npt.NDArray[np.bool_]:
        """See `RiskLimit`."""
        return state.is_lost[orders.rows] & ~orders.reduces

    def room(self, state: _Days, view: View, opening: Opening) -> FloatArray:
        """See `RiskLimit`."""
        return np.where(state.is_lost[opening.rows], 0.0, math.inf)

    def _day(self, view: View, rows: Rows) -> IntArray:
        return local_ns(view.bar.time_ns[rows] - 1, self.time_zone) // DAY_NS
