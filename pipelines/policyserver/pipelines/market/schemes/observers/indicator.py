"""The usual indicators, each a function of the last bars alone.

A window is float64 (m, bars + 1, K, 5): open, high, low, close and volume, the oldest bar first. Each function returns float64 (m, K),
about -1 to 1 or in per cent of the price, and 0 where a window has no range, no volume or no move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.observers.observer import Observer, View, of_each

_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = range(5)
_PER_CENT = 100.0


def rsi(window: FloatArray) -> FloatArray:
    """Relative strength index of simple means (Cutler), from -1 to 1: gains over gains and losses, less a half, times 2."""
    moves = np.diff(window[..., _CLOSE], axis=1)
    return _ratio(moves.sum(axis=1), np.abs(moves).sum(axis=1))


def momentum(window: FloatArray) -> FloatArray:
    """Log-return of the whole window, per cent."""
    return _PER_CENT * np.log(window[:, -1, :, _CLOSE] / window[:, 0, :, _CLOSE])


def mean_distance(window: FloatArray) -> FloatArray:
    """Log of the close over the simple mean of the window's closes, per cent."""
    mean: FloatArray = window[:, 1:, :, _CLOSE].mean(axis=1)
    return _PER_CENT * np.log(window[:, -1, :, _CLOSE] / mean)


def macd(window: FloatArray) -> FloatArray:
    """Exponential mean of half the window's bars less that of all, over the close, per cent."""
    closes = window[:, 1:, :, _CLOSE]
    bars = closes.shape[1]
    return _PER_CENT * (_exponential_mean(closes, max(1, bars // 2)) - _exponential_mean(closes, bars)) / closes[:, -1]


def bollinger(window: FloatArray) -> FloatArray:
    """Distance of the close from the simple mean, in two standard deviations of the window's closes."""
    closes = window[:, 1:, :, _CLOSE]
    return _ratio(closes[:, -1] - closes.mean(axis=1), 2.0 * closes.std(axis=1))


def true_range(window: FloatArray) -> FloatArray:
    """Mean true range (Wilder) over the close, per cent."""
    mean: FloatArray = _true_ranges(window).mean(axis=1)
    return _PER_CENT * mean / window[:, -1, :, _CLOSE]


def stochastic(window: FloatArray) -> FloatArray:
    """Place of the close between the window's lowest low, -1, and highest high, 1."""
    low, high = window[:, 1:, :, _LOW].min(axis=1), window[:, 1:, :, _HIGH].max(axis=1)
    return _ratio(2.0 * window[:, -1, :, _CLOSE] - high - low, high - low)


def channel_index(window: FloatArray) -> FloatArray:
    """Commodity channel index (Lambert) over 100."""
    typical = _typical(window)[:, 1:]
    mean = typical.mean(axis=1)
    return _ratio(typical[:, -1] - mean, 1.5 * np.abs(typical - mean[:, None]).mean(axis=1))


def balance_of_volume(window: FloatArray) -> FloatArray:
    """Volume of rising bars less that of falling ones, over all of the window."""
    volume = window[:, 1:, :, _VOLUME]
    return _ratio((np.sign(np.diff(window[..., _CLOSE], axis=1)) * volume).sum(axis=1), volume.sum(axis=1))


def money_flow(window: FloatArray) -> FloatArray:
    """Money flow index, from -1 to 1: typical price times volume of rising bars less that of falling ones, over both."""
    typical = _typical(window)
    flow = np.sign(np.diff(typical, axis=1)) * typical[:, 1:] * window[:, 1:, :, _VOLUME]
    return _ratio(flow.sum(axis=1), np.abs(flow).sum(axis=1))


def accumulation(window: FloatArray) -> FloatArray:
    """Chaikin's money flow: volume times the place of the close in its bar, over the volume."""
    bars = window[:, 1:]
    place = _ratio(2.0 * bars[..., _CLOSE] - bars[..., _HIGH] - bars[..., _LOW], bars[..., _HIGH] - bars[..., _LOW])
    return _ratio((place * bars[..., _VOLUME]).sum(axis=1), bars[..., _VOLUME].sum(axis=1))


def direction(window: FloatArray) -> FloatArray:
    """Directional movement upwards less downwards, over the true range (Wilder's DI+ and DI-)."""
    up, down = np.diff(window[..., _HIGH], axis=1), -np.diff(window[..., _LOW], axis=1)
    plus, minus = np.where((up > down) & (up > 0), up, 0.0), np.where((down > up) & (down > 0), down, 0.0)
    return _ratio((plus - minus).sum(axis=1), _true_ranges(window).sum(axis=1))


def aroon(window: FloatArray) -> FloatArray:
    """How much later the window's highest high came than its lowest low, over its bars."""
    bars = window[:, 1:]
    since: FloatArray = (bars[..., _HIGH].argmax(axis=1) - bars[..., _LOW].argmin(axis=1)) / max(1, bars.shape[1] - 1)
    return since


def vwap_distance(window: FloatArray) -> FloatArray:
    """Log of the close over the mean typical price weighted with the volume, per cent."""
    typical, volume = _typical(window)[:, 1:], window[:, 1:, :, _VOLUME]
    total = volume.sum(axis=1)
    mean = np.where(total > 0, _ratio((typical * volume).sum(axis=1), total), typical.mean(axis=1))
    return _PER_CENT * np.log(window[:, -1, :, _CLOSE] / mean)


def range_volatility(window: FloatArray) -> FloatArray:
    """Volatility of a bar by its range (Parkinson 1980), per cent."""
    squares = np.square(np.log(window[:, 1:, :, _HIGH] / window[:, 1:, :, _LOW]))
    variance: FloatArray = squares.mean(axis=1) / (4.0 * np.log(2.0))
    return _PER_CENT * np.sqrt(variance)


INDICATORS: dict[str, Callable[[FloatArray], FloatArray]] = {
    function.__name__: function
    for function in (
        rsi,
        momentum,
        mean_distance,
        macd,
        bollinger,
        true_range,
        stochastic,
        channel_index,
        balance_of_volume,
        money_flow,
        accumulation,
        direction,
        aroon,
        vwap_distance,
        range_volatility,
    )
}
"""The indicators by name."""


@dataclass(frozen=True, slots=True)
class Indicator(Observer):
    """One of the usual indicators of each symbol, over its last bars."""

    kind: Literal[
        "rsi",
        "momentum",
        "mean_distance",
        "macd",
        "bollinger",
        "true_range",
        "stochastic",
        "channel_index",
        "balance_of_volume",
        "money_flow",
        "accumulation",
        "direction",
        "aroon",
        "vwap_distance",
        "range_volatility",
    ] = "rsi"
    """Which one."""
    bars: Annotated[int, Interval(ge=1, le=10_000)] = 14
    """Bars that it is of."""

    def history_bars(self) -> int:
        """See `Scheme`."""
        return self.bars + 1

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return of_each(symbols, (f"{self.kind}_{self.bars}",))

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        return INDICATORS[self.kind](view.history.window(rows, self.bars + 1))


def _ratio(value: FloatArray, to: FloatArray) -> FloatArray:
    """Return the ratio, 0 where there is nothing to divide by."""
    ratio: FloatArray = np.divide(value, to, out=np.zeros_like(to), where=to > 0)
    return ratio


def _typical(window: FloatArray) -> FloatArray:
    typical: FloatArray = window[..., _HIGH : _CLOSE + 1].mean(axis=-1)
    return typical


def _true_ranges(window: FloatArray) -> FloatArray:
    before = window[:, :-1, :, _CLOSE]
    ranges: FloatArray = np.maximum(window[:, 1:, :, _HIGH], before) - np.minimum(window[:, 1:, :, _LOW], before)
    return ranges


def _exponential_mean(values: FloatArray, bars: int) -> FloatArray:
    """Return the mean, float64 (m, K), with weights that fall by 2 / (bars + 1) a bar, over the values there are."""
    weights = (1.0 - 2.0 / (bars + 1)) ** np.arange(values.shape[1])[::-1]
    return np.tensordot(values, weights / weights.sum(), axes=(1, 0))
