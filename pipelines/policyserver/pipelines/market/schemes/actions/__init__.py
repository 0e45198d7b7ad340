"""Action schemes: what an action means for a row's orders. One's own is an `ActionScheme` in a file of one's own.

Imports `monitoring.action`, `pipelines.market` and `pipelines.market.schemes.scheme`.
"""

from policyserver.pipelines.market.registry import Registry
from policyserver.pipelines.market.schemes.actions.action_scheme import ActionScheme

__all__ = ["ACTIONS", "ActionScheme"]

_HERE = "policyserver.pipelines.market.schemes.actions"

ACTIONS = Registry(
    "action scheme",
    ActionScheme,
    {
        "sell_hold_buy": f"{_HERE}.sell_hold_buy.SellHoldBuy",
        "hold_buy_sell_close": f"{_HERE}.hold_buy_sell_close.HoldBuySellClose",
        "target_position": f"{_HERE}.target_position.TargetPosition",
        "target_weight": f"{_HERE}.target_weights.TargetWeight",
        "simplex_weights": f"{_HERE}.target_weights.SimplexWeights",
        "limit_offsets": f"{_HERE}.limit_offsets.LimitOffsets",
    },
)
"""The shipped schemes."""
