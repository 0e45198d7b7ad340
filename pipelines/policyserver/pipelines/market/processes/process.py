"""What a price process is: a law of log-prices, and paths of many episodes at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policyserver.common.settings import Config
from policyserver.pipelines.market.bars import FloatArray


class Draws:
    """The random numbers of n episodes: row i comes from generator i alone, so that an episode is the same in whatever company."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        """Draw row i from `generators[i]`."""
        self.generators = tuple(generators)
        """One for each row."""

    def normal(self, count: int) -> FloatArray:
        """Return standard normal numbers, float64 (n, count)."""
        return np.array([generator.standard_normal(count) for generator in self.generators])

    def uniform(self, count: int) -> FloatArray:
        """Return uniform numbers from [0, 1), float64 (n, count)."""
        return np.array([generator.random(count) for generator in self.generators])


@dataclass(frozen=True, slots=True, eq=False)
class LogPaths:
    """Paths of n log-prices on the sub-steps of their bars."""

    log_price: FloatArray
    """Log-prices at 0, 1, ... sub-steps, float64 (n, n_steps + 1)."""
    step_std: FloatArray
    """Standard deviation of the continuous part of each sub-step, given the path so far, float64 (n, n_steps) or (n, 1): what the extremes
    between two sub-steps follow from."""


class PriceProcess(Config):
    """A law of log-prices whose parameters are drawn anew for each episode. The unit of time is one bar."""

    __slots__ = ()

    def check(self, n_bars: int) -> None:
        """Raise a ValueError that begins with a field's name and a colon when paths of `n_bars` could leave what a price can be."""
        raise NotImplementedError

    def draw_parameters(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw an episode's parameters from the priors; always the same names."""
        raise NotImplementedError

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return paths of one episode for each row of `draws`.

        Args:
            draws: The random numbers.
            parameters: What `draw_parameters` drew, one float64 (n,) for each name.
            n_steps: Sub-steps.
            steps_per_bar: Sub-steps of one bar.
        """
        raise NotImplementedError
