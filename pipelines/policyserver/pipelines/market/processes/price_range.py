"""What a price can be, and the refusal of parameters whose paths could leave it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from annotated_types import Interval

from policyserver.pipelines.market.priors import Prior

LOWEST_PRICE, HIGHEST_PRICE = 1e-15, 1e15
"""Bounds of every price that is given, in a file or as a level: an account's arithmetic stays far from what a float can hold."""

PriceLevel = Annotated[Prior, Interval(ge=LOWEST_PRICE, le=HIGHEST_PRICE)]
"""A prior of prices."""

FURTHEST_LOG_PRICE = 230.0
"""Bound of a simulated log-price: e**230 is 1e100."""

SIGMAS = 9.0
"""Standard deviations within which every path stays: a normal number beyond them is drawn once in 1e18 times."""

RAREST = 1e-18
"""Probability of what is left out of account, the same for laws with other tails."""


def check_reach(n_bars: int, reach: Callable[..., float], **values: float) -> None:
    """Refuse values from which a path could leave the prices from 1e-100 to 1e100.

    Args:
        n_bars: Length of the path.
        reach: Largest distance of the log-price from 0, of keyword arguments named as `values`; 0 for each is the shortest.
        values: Setting to its value that reaches furthest.

    Raises:
        ValueError: It begins with the setting that contributes most and tells the value that it may have beside the others.
    """
    if reach(**values) <= FURTHEST_LOG_PRICE:
        return
    name = min(values, key=lambda name: reach(**{**values, name: 0.0}))
    allowed, refused = 0.0, values[name]
    for _ in range(40):
        middle = (allowed + refused) / 2
        allowed, refused = (middle, refused) if reach(**{**values, name: middle}) <= FURTHEST_LOG_PRICE else (allowed, middle)
    side = "at least" if values[name] < 0 else "at most"
    raise ValueError(
        f"{name}: expected {side} {allowed * 0.995:.3g}, for prices from 1e-100 to 1e+100 in {n_bars} bars, received {values[name]:g}"
    )


def furthest(price: Prior) -> float:
    """Return the largest distance of the logarithm of a price from 0."""
    return max(abs(math.log(price.low)), abs(math.log(price.high)))


def largest(prior: Prior) -> float:
    """Return the value furthest from 0, with its sign."""
    return max(prior.low, prior.high, key=abs)


def drifting_reach(start: Prior, n_bars: int, drift: float, variance: float, shocks: float = 0.0) -> float:
    """Return how far the log-price of a martingale times exp(drift * time) comes from 0.

    Args:
        start: Prices at the beginning.
        n_bars: Length of the path.
        drift: Growth per bar, of either sign.
        variance: Largest variance of the log-return per bar.
        shocks: Distance that single shocks add.
    """
    return furthest(start) + n_bars * (abs(drift) + variance / 2) + SIGMAS * math.sqrt(n_bars * variance) + shocks
