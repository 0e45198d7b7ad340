"""What forecasts the rows of a block; `policyserver.pipelines.forecast` has those that learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.episode_source import Episode


class Forecaster(Protocol):
    """Forecasts the rows of a block into its view. One owner at a time: the block's."""

    def begin(self, rows: IntArray, episodes: Sequence[Episode]) -> None:
        """New episodes begin in rows."""

    def learn(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Learn the last log-return of each row that was forecast.

        Returns:
            The squared errors of those forecasts that count for the skill, and of the zero forecast in their place, float64 (f,) each.
        """

    def predict(self, rows: IntArray) -> None:
        """Forecast the next log-return of each row, into the view."""
