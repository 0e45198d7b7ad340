"""Priors: the distributions that an episode's process parameters are drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from policyserver.common.settings import Config


@dataclass(frozen=True, slots=True)
class Prior(Config):
    """A parameter between `low` and `high`; equal bounds fix it.

    In TOML: `reversion = { low = 0.03, high = 0.08, distribution = "log_uniform" }`.
    """

    low: float
    """Smallest value, in the parameter's own unit."""
    high: float
    """Largest value, in the parameter's own unit."""
    distribution: Literal["uniform", "log_uniform"] = "uniform"
    """`uniform`: every value alike; `log_uniform`: every ratio alike (needs positive bounds)."""

    def _check(self) -> None:
        if self.low > self.high:
            raise ValueError(f"high: expected at least low={self.low}, received {self.high}")
        if self.distribution == "log_uniform" and self.low <= 0:
            raise ValueError(f"low: expected a positive number for log_uniform, received {self.low}")

    def __ge__(self, bound: float) -> bool:
        """Tell whether every value is at least `bound`: what the declared bounds of a prior mean."""
        return self.low >= bound

    def __gt__(self, bound: float) -> bool:
        """Tell whether every value is more than `bound`."""
        return self.low > bound

    def __le__(self, bound: float) -> bool:
        """Tell whether every value is at most `bound`."""
        return self.high <= bound

    def __lt__(self, bound: float) -> bool:
        """Tell whether every value is less than `bound`."""
        return self.high < bound

    @classmethod
    def fixed(cls, value: float) -> Prior:
        """Return the prior whose only value is `value`."""
        return cls(value, value)

    def draw(self, rng: np.random.Generator) -> float:
        """Draw one value; a fixed prior takes one number from `rng` too, so that fixing a parameter leaves the others as they were."""
        share = rng.random()
        if self.distribution == "log_uniform":
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return min(max(value, self.low), self.high)
