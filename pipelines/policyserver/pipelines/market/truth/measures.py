"""All measures of many episodes, and their bands over them.

episodes = Episodes(equity=equity, exposure=exposure, traded=traded, fees=fees, ordered=ordered, filled=filled)
measures = measure(episodes, periods_per_year=525_600)      # one float64 (n,) for each name
bands = {name: band(values) for name, values in measures.items()}
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.truth import metrics
from policyserver.pipelines.market.truth.ragged import count, mean, ratio, total


@dataclass(frozen=True, slots=True, eq=False)
class Episodes:
    """The record of n episodes of up to T bars, float64, NaN after the end of those that are shorter."""

    equity: FloatArray
    """Equity at each mark, (n, T + 1): the first is before the first bar."""
    exposure: FloatArray
    """Gross exposure at the mark of each bar, as a fraction of the equity, (n, T)."""
    traded: FloatArray
    """Notional traded in each bar, in cash, (n, T)."""
    fees: FloatArray
    """Fees paid in each bar, in cash, (n, T)."""
    ordered: FloatArray
    """Units of the orders accepted in each bar, (n, T), or any other measure of them that `filled` has too."""
    filled: FloatArray
    """Units filled in each bar, (n, T)."""

    def __post_init__(self) -> None:
        metrics.check_equity(self.equity)
        shape = (self.equity.shape[0], self.equity.shape[1] - 1)
        for field in fields(self):
            received = getattr(self, field.name).shape
            if field.name != "equity" and received != shape:
                raise ValueError(f"{field.name}: expected shape {shape}, one bar less than the marks of equity, received {received}")


@dataclass(frozen=True, slots=True)
class Band:
    """Quantiles over episodes; NaN without an episode that has the measure."""

    low: float
    """5 % of the episodes are below it."""
    median: float
    """Half of the episodes are below it."""
    high: float
    """95 % of the episodes are below it."""
    episodes: int
    """Episodes that have the measure."""


def measure(episodes: Episodes, periods_per_year: float) -> dict[str, FloatArray]:
    """Return every measure by its name, float64 (n,) each; `metrics` says what those of equity and returns are.

    `turnover` is the notional traded over the mean equity, `fees` the fees over the initial equity, both of the whole episode; `fill_rate`
    what was filled of what was ordered; `exposure` the mean gross exposure, `time_in_market` the part of the bars that end with one.
    `hit_ratio` and `profit_factor` are of the bars in which the equity changed, all costs taken off.

    Args:
        episodes: What is measured.
        periods_per_year: Bars in a year.

    Raises:
        ValueError: `periods_per_year` is not above 0.
    """
    equity = episodes.equity
    returns = metrics.simple_returns(equity)
    profits = np.diff(equity, axis=1)
    return {
        "total_return": metrics.total_return(equity),
        "annual_return": metrics.annual_return(equity, periods_per_year),
        "volatility": metrics.volatility(returns, periods_per_year),
        "sharpe_ratio": metrics.sharpe_ratio(returns, periods_per_year),
        "sortino_ratio": metrics.sortino_ratio(returns, periods_per_year),
        "calmar_ratio": metrics.calmar_ratio(equity, periods_per_year),
        "max_drawdown": metrics.max_drawdown(equity),
        "longest_drawdown_bars": metrics.longest_drawdown_bars(equity).astype(np.float64),
        "turnover": ratio(total(episodes.traded), mean(equity)),
        "fees": total(episodes.fees) / equity[:, 0],
        "fill_rate": ratio(total(episodes.filled), total(episodes.ordered)),
        "hit_ratio": metrics.hit_ratio(profits),
        "profit_factor": metrics.profit_factor(profits),
        "exposure": mean(episodes.exposure),
        "time_in_market": ratio(np.count_nonzero(episodes.exposure > 0, axis=1), count(episodes.exposure)),
        "value_at_risk": metrics.value_at_risk(returns),
        "conditional_value_at_risk": metrics.conditional_value_at_risk(returns),
        "tail_ratio": metrics.tail_ratio(returns),
    }


def band(values: FloatArray) -> Band:
    """Return the 5, 50 and 95 % quantiles, interpolated linearly, of a measure, float64 (n,); NaN is left out."""
    known = values[~np.isnan(values)]
    low, median, high = (np.quantile(known, (0.05, 0.5, 0.95)) if known.size else np.full(3, np.nan)).tolist()
    return Band(low, median, high, known.size)
