"""A limit on when orders are given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.intervals import DAY_NS, MINUTE_NS
from policyserver.pipelines.market.risk.limit import Proposed, RiskLimit, Shape, View
from policyserver.pipelines.market.risk.local_time import local_ns
from policyserver.pipelines.market.zones import zone_of

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EPOCH_WEEKDAY = DAYS.index("thu")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")


@dataclass(frozen=True, slots=True)
class AllowedHours(RiskLimit):
    """Refuses orders that are given outside some hours, by the end of the bar at whose close they are.

    Orders that only reduce a position are refused like all others, unless they are exempt. Live orders fill at any time.
    """

    hours: tuple[str, ...] = ("09:30-16:00",)
    """Times of the day from, inclusive, to, exclusive; one that ends before it begins goes on through midnight."""
    days: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri")
    """Days on which the hours begin."""
    time_zone: str = "America/New_York"
    """Zone of the hours: UTC, an offset such as -05:00, or a name such as America/New_York."""
    exempts_reducing: bool = False
    """Whether orders that only reduce a position pass."""

    def _check(self) -> None:
        zone_of(self.time_zone)
        if not self.hours or not self.days:
            raise ValueError(f"{'days' if self.hours else 'hours'}: expected at least one, received none")
        for hours in self.hours:
            if not _HOURS.fullmatch(hours) or hours[:5] == hours[6:]:
                raise ValueError(f'hours: expected two different times such as "09:30-16:00", received {hours!r}')

    def new_state(self, shape: Shape) -> npt.NDArray[np.bool_]:
        """Return whether each minute of a week is allowed, from Monday on, bool (10080,)."""
        minutes = np.zeros(7 * 1440, dtype=np.bool_)
        for hours in self.hours:
            begin, end = (int(time[:2]) * 60 + int(time[3:]) for time in hours.split("-"))
            length = end - begin if end > begin else end + 1440 - begin
            for day in self.days:
                minutes[(DAYS.index(day) * 1440 + begin + np.arange(length)) % len(minutes)] = True
        return minutes

    def refuses(self, state: npt.NDArray[np.bool_], view: View, orders: Proposed) -> npt.NDArray[np.bool_]:
        """See `RiskLimit`."""
        local = local_ns(view.bar.time_ns[orders.rows], self.time_zone) + _EPOCH_WEEKDAY * DAY_NS
        closed: npt.NDArray[np.bool_] = ~state[local // MINUTE_NS % len(state)]
        return closed & ~orders.reduces if self.exempts_reducing else closed
