"""An end by time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from annotated_types import Gt

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.ends.end import End, View
from policyserver.pipelines.market.schemes.scheme import Shape


@dataclass(frozen=True, slots=True)
class Duration(End):
    """Truncates when some time of the market has passed since the bar of the first action."""

    days: Annotated[float, Gt(0)] = 1.0
    """Days of 24 hours; fractions of one are allowed."""

    terminates: ClassVar[bool] = False

    def new_state(self, shape: Shape) -> IntArray:
        """Return the times of the first actions, int64 nanoseconds (n,)."""
        return np.zeros(shape.n_rows, dtype=np.int64)

    def begin(self, state: IntArray, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        state[rows] = view.bar.time_ns[rows]

    def reached(self, state: IntArray, view: View, rows: Rows) -> npt.NDArray[np.bool_]:
        """See `End`."""
        passed: npt.NDArray[np.bool_] = view.bar.time_ns[rows] - state[rows] >= self.days * 86_400e9
        return passed
