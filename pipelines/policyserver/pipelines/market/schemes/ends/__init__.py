"""Ends: when an episode is over, and whether it was its own rules or its time that ended it. One's own is an `End`.

Imports `pipelines.market` and `pipelines.market.schemes.scheme`.
"""

from policyserver.pipelines.market.registry import Registry
from policyserver.pipelines.market.schemes.ends.end import End

__all__ = ["ENDS", "End"]

_HERE = "policyserver.pipelines.market.schemes.ends"

ENDS = Registry(
    "end",
    End,
    {
        "ruin": f"{_HERE}.equity_ends.Ruin",
        "drawdown_call": f"{_HERE}.equity_ends.DrawdownCall",
        "target_call": f"{_HERE}.equity_ends.TargetCall",
        "duration": f"{_HERE}.duration.Duration",
    },
)
"""The shipped ends. The end of the data ends every episode, truncated, without being chosen."""
