"""Limits on risk: what keeps an order from the broker. One's own is a `RiskLimit` in a file of one's own.

Imports `common.settings`, `pipelines.market`, `pipelines.market.execution` and `pipelines.market.schemes.scheme`.
"""

from policyserver.pipelines.market.registry import Registry
from policyserver.pipelines.market.risk.limit import RiskLimit

__all__ = ["LIMITS", "RiskLimit"]

_HERE = "policyserver.pipelines.market.risk"

LIMITS = Registry(
    "limit on risk",
    RiskLimit,
    {
        "max_position": f"{_HERE}.exposure.MaxPosition",
        "gross_exposure": f"{_HERE}.exposure.GrossExposure",
        "net_exposure": f"{_HERE}.exposure.NetExposure",
        "group_exposure": f"{_HERE}.exposure.GroupExposure",
        "order_rate": f"{_HERE}.order_rate.OrderRate",
        "day_loss": f"{_HERE}.day_loss.DayLoss",
        "price_band": f"{_HERE}.price_band.PriceBand",
        "allowed_hours": f"{_HERE}.hours.AllowedHours",
    },
)
"""The shipped limits. None is on unless the rules name it."""
