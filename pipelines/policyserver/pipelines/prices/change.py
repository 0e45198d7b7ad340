"""The seam at which prices are changed to find out what depends on them: where they come from, before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray


class PriceChange(Protocol):
    """Changes the prices of a source as it makes them. Thread-safe, and the same for the same episode or file."""

    def generators(self, number: int, generators: Sequence[np.random.Generator], n_bars: int) -> list[np.random.Generator]:
        """Return the generators that the symbols of a simulated episode of `n_bars` are drawn from."""

    def drawn(self, number: int, bars: FloatArray) -> FloatArray:
        """Return the bars of a simulated episode, float64 (t, K, 5)."""

    def rows(self, symbol: str, ends_ns: IntArray, columns: dict[str, FloatArray]) -> None:
        """Change the rows of a file in place; see `RowChange`."""
