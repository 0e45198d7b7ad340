"""What is left of the returns of many episodes that are no longer held one by one: their number and quantiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policyserver.monitoring.page.quantiles import SHARES

_POINTS = np.linspace(0.0, 1.0, 201)
"""Shares of the quantiles that are kept; those that the page shows are among them."""
_SHOWN = np.searchsorted(_POINTS, np.array(list(SHARES.values())) - 1e-9)


@dataclass(frozen=True, slots=True)
class ThinnedReturns:
    """Quantiles of returns. Of what was thinned once they are exact; joined ones are off by less than a hundredth of the episodes."""

    count: float
    """Number of the episodes."""
    values: np.ndarray
    """Their quantiles, float64[201]."""

    @classmethod
    def of(cls, returns: np.ndarray, weight: float = 1.0) -> ThinnedReturns:
        """Thin the returns of episodes, at least one, each of which stands for `weight` episodes."""
        return cls(weight * len(returns), np.quantile(returns, _POINTS))

    def joined(self, other: ThinnedReturns | None) -> ThinnedReturns:
        """Return what is left of both."""
        if other is None:
            return self
        values = np.concatenate([self.values, other.values])
        weights = np.repeat([self.count, other.count], len(_POINTS))
        order = np.argsort(values, kind="stable")
        upto = np.cumsum(weights[order])
        places = (upto - weights[order] / 2) / upto[-1]
        return ThinnedReturns(self.count + other.count, np.interp(_POINTS, places, values[order]))

    @property
    def shown(self) -> np.ndarray:
        """The quantiles that the page shows, in the order of `SHARES`."""
        shown: np.ndarray = self.values[_SHOWN]
        return shown
