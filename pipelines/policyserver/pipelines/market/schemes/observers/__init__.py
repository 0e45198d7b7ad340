"""Observers: what the policy sees, in named blocks of numbers. One's own is an `Observer` in a file of one's own.

Imports `pipelines.market` and `pipelines.market.schemes.scheme`.
"""

from policyserver.pipelines.market.registry import Registry
from policyserver.pipelines.market.schemes.observers.observer import Observer

__all__ = ["OBSERVERS", "Observer"]

_HERE = "policyserver.pipelines.market.schemes.observers"

OBSERVERS = Registry(
    "observer",
    Observer,
    {
        "returns": f"{_HERE}.returns.Returns",
        "distances": f"{_HERE}.distances.Distances",
        "volatility": f"{_HERE}.volatility.LogVolatility",
        "forecast": f"{_HERE}.forecast.Forecast",
        "position": f"{_HERE}.position.PositionShare",
        "unrealised_profit": f"{_HERE}.position.UnrealisedProfit",
        "time_left": f"{_HERE}.time_left.TimeLeft",
        "window": f"{_HERE}.window.Window",
        "refusals": f"{_HERE}.refusals.Refusals",
        "indicator": f"{_HERE}.indicator.Indicator",
        "exogenous": f"{_HERE}.exogenous.Exogenous",
        "differenced": f"{_HERE}.differenced.Differenced",
        "staleness": f"{_HERE}.staleness.Staleness",
    },
)
"""The shipped observers."""
