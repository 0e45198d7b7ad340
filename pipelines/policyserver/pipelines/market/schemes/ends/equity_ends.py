"""Ends by what the account is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from annotated_types import Gt, Interval

from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.ends.end import End, View


@dataclass(frozen=True, slots=True)
class Ruin(End):
    """Terminates when the equity is at most a fraction of the initial one."""

    fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Of the initial equity."""

    def reached(self, state: Any, view: View, rows: Rows) -> npt.NDArray[np.bool_]:
        """See `End`."""
        accounts = view.accounts
        lost: npt.NDArray[np.bool_] = accounts.equity[rows] <= self.fraction * accounts.initial_equity[rows]
        return lost


@dataclass(frozen=True, slots=True)
class DrawdownCall(End):
    """Terminates when the equity has fallen a fraction below its highest so far."""

    fraction: Annotated[float, Interval(gt=0, le=1)] = 0.2
    """Of the highest equity of all bars so far."""

    def reached(self, state: Any, view: View, rows: Rows) -> npt.NDArray[np.bool_]:
        """See `End`."""
        accounts = view.accounts
        fallen: npt.NDArray[np.bool_] = accounts.equity[rows] <= (1.0 - self.fraction) * accounts.highest_equity[rows]
        return fallen


@dataclass(frozen=True, slots=True)
class TargetCall(End):
    """Truncates when the equity has gained a fraction of the initial one: the episode has done what it was for."""

    fraction: Annotated[float, Gt(0)] = 0.2
    """Gain over the initial equity."""

    terminates: ClassVar[bool] = False

    def reached(self, state: Any, view: View, rows: Rows) -> npt.NDArray[np.bool_]:
        """See `End`."""
        accounts = view.accounts
        gained: npt.NDArray[np.bool_] = accounts.equity[rows] >= (1.0 + self.fraction) * accounts.initial_equity[rows]
        return gained
