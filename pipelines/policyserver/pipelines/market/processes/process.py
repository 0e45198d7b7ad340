"""What a price process is: a law of prices, drawn for many rows at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

import numpy as np

from policyserver.common.settings import Config
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.draws import Draws, by_row
from policyserver.pipelines.market.processes.path_bars import LogPaths, RowBars, bars_from_paths
from policyserver.pipelines.market.processes.price_range import PriceLevel

_FEW_ROWS = 20
"""Rows below which a recursion runs faster in Python's numbers than in numpy's arrays."""


class PriceProcess(Config):
    """A law of prices whose parameters are drawn anew for each row. The unit of time is one bar."""

    __slots__ = ()

    @property
    def rows_per_episode(self) -> int:
        """Rows that belong to one episode and stand beside each other: one for each asset."""
        return 1

    @property
    def catalogs(self) -> tuple[CatalogConfig, ...]:
        """Files that the law is made of, for the record of a run; a field that holds one is called `recorded`."""
        return ()

    @property
    def assets(self) -> tuple[str, ...]:
        """What the rows of an episode are called, where they are something's that has a name; else none."""
        return ()

    @property
    def has_sub_steps(self) -> bool:
        """Whether bars depend on the sub-steps that they are simulated in."""
        return True

    def check(self, n_bars: int) -> None:
        """Raise a ValueError that begins with a field's name and a colon when paths of `n_bars` could leave what a price can be."""
        raise NotImplementedError

    def draw_parameters(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw a row's parameters: every field that is a prior, in the order of declaration."""
        values = ((each.name, getattr(self, each.name)) for each in fields(cast(Any, self)))
        return {name: value.draw(rng) for name, value in values if isinstance(value, Prior)}

    def draw_rows(self, generators: Sequence[np.random.Generator]) -> list[dict[str, float]]:
        """Draw the parameters of the rows of whole episodes, each from its generator; a law whose assets share some says so here."""
        return [self.draw_parameters(generator) for generator in generators]

    def bars(self, draws: Draws, parameters: Mapping[str, FloatArray], n_bars: int, steps_per_bar: int) -> RowBars:
        """Return the bars of each row of `draws`.

        Args:
            draws: The random numbers.
            parameters: What `draw_parameters` drew, one float64 (n,) for each name; NaN in rows without it.
            n_bars: Bars of a row.
            steps_per_bar: Sub-steps that a bar is simulated in.
        """
        raise NotImplementedError


class PathProcess(PriceProcess):
    """A process of log-prices on sub-steps, whose bars follow from its paths."""

    __slots__ = ()

    def bars(self, draws: Draws, parameters: Mapping[str, FloatArray], n_bars: int, steps_per_bar: int) -> RowBars:
        """Return the bars of each row's path."""
        return bars_from_paths(draws, self.paths(draws, parameters, n_bars * steps_per_bar, steps_per_bar), steps_per_bar)

    def paths(self, draws: Draws, parameters: Mapping[str, FloatArray], n_steps: int, steps_per_bar: int) -> LogPaths:
        """Return the path of each row of `draws`.

        Args:
            draws: The random numbers.
            parameters: What `draw_parameters` drew, one float64 (n,) for each name.
            n_steps: Sub-steps, of whole bars.
            steps_per_bar: Sub-steps of one bar.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class DriftingProcess(PathProcess):
    """A process that begins at a price and whose expected price grows at a rate."""

    start_price: PriceLevel = field(default_factory=lambda: Prior(50.0, 200.0, "log_uniform"))
    """Price before the first bar."""
    price_drift: Prior = field(default_factory=lambda: Prior.fixed(0.0))
    """mu per bar, E[S(t+1) | S(t)] = S(t) exp(mu): 0 is a fair game, in which the log-price falls by half the variance."""


def log_prices(start_price: FloatArray, log_returns: FloatArray) -> FloatArray:
    """Return log-prices from a start price (n,) and the log-returns (n, n_steps) after it, float64 (n, n_steps + 1)."""
    path = np.zeros((len(log_returns), log_returns.shape[1] + 1))
    np.cumsum(log_returns, axis=1, out=path[:, 1:])
    path += by_row(math.log, start_price)[:, np.newaxis]
    return path


def recursion(step_through: Callable[..., Sequence[Any]], starts: Sequence[FloatArray], series: FloatArray) -> FloatArray:
    """Return a path of each row that no closed form has, float64 (n, n_steps).

    Args:
        step_through: Takes a row's starts as floats and its series as a list, or those of all rows at once as arrays (n,) and a sequence
            of arrays (n,); it returns the path's values.
        starts: float64 (n,) each.
        series: float64 (n, n_steps).
    """
    if len(series) < _FEW_ROWS:
        columns = (column.tolist() for column in starts)
        return np.array([step_through(*values, row) for *values, row in zip(*columns, series.tolist(), strict=True)])
    return np.stack(step_through(*starts, np.ascontiguousarray(series.T)), axis=1)


def draw_bars(
    process: PriceProcess, generators: Sequence[np.random.Generator], n_bars: int, steps_per_bar: int
) -> tuple[list[dict[str, float]], RowBars]:
    """Draw parameters and bars of as many rows as there are generators: whole episodes, each row a function of its episode's generators.

    Args:
        process: The law.
        generators: One for each row, in the state that the row begins at.
        n_bars: Bars of a row.
        steps_per_bar: Sub-steps that a bar is simulated in.

    Returns:
        What was drawn for each row, to be recorded, and the bars.
    """
    drawn = process.draw_rows(generators)
    names = dict.fromkeys(name for row in drawn for name in row)
    columns = {name: np.array([row.get(name, math.nan) for row in drawn]) for name in names}
    return drawn, process.bars(Draws(generators), columns, n_bars, steps_per_bar)
