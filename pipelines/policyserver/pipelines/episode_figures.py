"""Means over episodes and their standard errors, in constant memory however many episodes there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policyserver.pipelines.market.bars import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeFigures:
    """What is known of some episodes together: NaN without any, or where one of them has no such figure. Immutable."""

    names: tuple[str, ...]
    """Of the figures."""
    count: int
    """Episodes."""
    means: FloatArray
    """Of each figure, float64 (k,)."""
    products: FloatArray
    """Sums of the products of two figures' deviations from their means, float64 (k, k)."""

    @classmethod
    def of(cls, columns: Mapping[str, FloatArray]) -> EpisodeFigures:
        """Return those of episodes, of each figure a column, float64 (n,)."""
        rows = np.stack(list(columns.values()), axis=1)
        if not len(rows):
            return cls(tuple(columns), 0, np.zeros(len(columns)), np.zeros((len(columns), len(columns))))
        means = rows.mean(axis=0)
        return cls(tuple(columns), len(rows), means, (rows - means).T @ (rows - means))

    def plus(self, other: EpisodeFigures) -> EpisodeFigures:
        """Return those of both."""
        if not other.count:
            return self
        count, distance = self.count + other.count, other.means - self.means
        means = self.means + distance * (other.count / count)
        products = self.products + other.products + np.outer(distance, distance) * (self.count * other.count / count)
        return EpisodeFigures(self.names, count, means, products)

    def mean(self, *names: str) -> float:
        """Return the mean of a figure, or of the sum of several."""
        return float(self.means[self._places(names)].sum()) if self.count else math.nan

    def stderr(self, *names: str) -> float:
        """Return the standard error of that mean; NaN of fewer than two episodes."""
        places = self._places(names)
        squares = float(self.products[np.ix_(places, places)].sum())
        return math.sqrt(max(squares, 0.0) / (self.count - 1) / self.count) if self.count > 1 and not math.isnan(squares) else math.nan

    def _places(self, names: tuple[str, ...]) -> list[int]:
        return [self.names.index(name) for name in names]
