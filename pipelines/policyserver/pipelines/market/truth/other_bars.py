"""Bars that stand in for others, to find out what depends on them: another future, and a market in which nothing can be foretold.

Bars are float64 (n, 5) of one symbol in the order of time: open, high, low, close and volume, prices above 0.
"""

from __future__ import annotations

import numpy as np

from policyserver.pipelines.market.bars import FloatArray

_STEPS = 4
"""Sub-steps of a fair bar."""

_JUMP_SIGMAS, _JUMP_FLOOR = 30.0, 0.1
"""What a file's check takes for a jump or a split by default: no bar is made to one."""

_SMALLEST_MOVE = 1e-4


def other_future(bars: FloatArray, kept: int, rng: np.random.Generator) -> FloatArray:
    """Return the bars with others after the first `kept`: valid, of the same size but without jumps, and of other volumes.

    Each is the bar that was there, mirrored or not, wider or narrower, and off the close before it. The first of them leaves a gap: its
    range does not hold the last close that was kept.
    """
    made = bars.copy()
    n = len(bars) - kept
    if n <= 0:
        return made
    logs = np.log(bars[:, :4])
    relative = (logs - np.append(logs[0, 0], logs[:-1, 3])[:, None])[kept:]
    usual, limit = _usual_move(relative[:, 3])
    widest = np.abs(relative).max(axis=1)
    sign = rng.choice([-1.0, 1.0], n)
    factor = sign * rng.uniform(0.5, 1.5, n) * np.where(2.0 * widest > limit, usual / np.maximum(widest, usual), 1.0)
    other = relative * factor[:, None]
    other[sign < 0, 1:3] = other[sign < 0, 2:0:-1]  # a mirrored high is a low
    other += (0.3 * usual * np.clip(rng.standard_normal(n), -3.0, 3.0))[:, None]
    other[0] += usual - other[0].min() if rng.random() < 0.5 else -usual - other[0].max()
    start = logs[kept - 1, 3] if kept else logs[0, 0]
    closes = start + np.append(0.0, np.cumsum(other[:, 3]))
    made[kept:, :4] = np.exp(closes[:-1, None] + other)
    made[kept:, 4] *= np.exp(rng.uniform(-1.0, 1.0, n))
    return made


def fair_bars(bars: FloatArray, rng: np.random.Generator, start: float | None = None) -> FloatArray:
    """Return bars of a martingale: as volatile as those that were there, bar by bar, with their volumes, and in no direction.

    The gap before a bar is a log-normal factor of mean 1 as wide as the gap that was there, and within a bar the price is a geometric
    Brownian motion without drift whose volatility is Parkinson's estimate of that bar, with the exact laws of its high and of its low. So
    no order that is placed before a bar gains or loses by it in the mean, wherever in the bar it fills.

    Args:
        bars: The bars that were there.
        rng: Draws the others.
        start: Price that the first opens at; None: where it did.
    """
    logs = np.log(bars[:, :4])
    gaps = np.append(0.0, logs[1:, 0] - logs[:-1, 3])
    _, limit = _usual_move(np.diff(logs[:, 3], prepend=logs[0, 0]))
    widest = limit / 6.0
    sigma = np.minimum((logs[:, 1] - logs[:, 2]) / np.sqrt(4.0 * np.log(2.0)), widest)
    gap_sigma = np.minimum(np.abs(gaps), widest)
    n = len(bars)
    first = logs[0, 0] if start is None else np.log(start)
    gap = gap_sigma * rng.standard_normal(n) - gap_sigma**2 / 2
    step = (sigma / np.sqrt(_STEPS))[:, None]
    path = np.cumsum(step * rng.standard_normal((n, _STEPS)) - step**2 / 2, axis=1)
    ends = np.concatenate((np.zeros((n, 1)), path), axis=1)
    high, low = (_extreme(ends, step, rng, side) for side in (1.0, -1.0))
    closes = first + np.cumsum(gap + path[:, -1])
    opens = np.append(first, closes[:-1]) + gap
    made = bars.copy()
    made[:, 0] = np.exp(opens)
    made[:, 3] = np.exp(closes)
    made[:, 1] = np.maximum(np.exp(opens + high), np.maximum(made[:, 0], made[:, 3]))
    made[:, 2] = np.minimum(np.exp(opens + low), np.minimum(made[:, 0], made[:, 3]))
    return made


def _usual_move(log_returns: FloatArray) -> tuple[float, float]:
    """Return the median size of log-returns, and the size from which one counts as a jump."""
    usual = max(float(np.median(np.abs(log_returns))), _SMALLEST_MOVE)
    return min(usual, _JUMP_FLOOR / 4), max(_JUMP_SIGMAS * 1.4826 * usual, _JUMP_FLOOR)


def _extreme(ends: FloatArray, step: FloatArray, rng: np.random.Generator, side: float) -> FloatArray:
    """Return the highest (side 1) or lowest (-1) value of Brownian bridges through the ends of the sub-steps, float64 (n,)."""
    before, after = ends[:, :-1], ends[:, 1:]
    spread = np.sqrt((after - before) ** 2 + 2.0 * step**2 * rng.standard_exponential(before.shape))
    extremes = (before + after + side * spread) / 2.0
    extreme: FloatArray = side * (side * extremes).max(axis=1)
    return extreme
