"""What a reward term is: one of the numbers whose sum a step was worth."""

from __future__ import annotations

from typing import Any

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.scheme import Scheme, Shape, View


class RewardTerm(Scheme):
    """A term of the reward. Its state, if it has one, is updated by `compute` itself, which is called once for each bar of a row."""

    __slots__ = ()

    def compute(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """Return what the actions of the bar before were worth, finite, float64 (m,).

        The accounts are valued at the bar's close; `marked_equity` and `highest_equity` are still those of the bar before.
        """
        raise NotImplementedError


__all__ = ["RewardTerm", "Shape", "View"]
