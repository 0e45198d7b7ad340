"""Price processes, one file each. A process of one's own is a `PriceProcess` in a file of one's own.

Imports `common.settings` and `pipelines.market`.
"""

from policyserver.pipelines.market.processes.process import PriceProcess
from policyserver.pipelines.market.registry import Registry

__all__ = ["PROCESSES", "PriceProcess"]

_HERE = "policyserver.pipelines.market.processes"

PROCESSES = Registry(
    "process",
    PriceProcess,
    {
        "ou": f"{_HERE}.ou.OrnsteinUhlenbeck",
        "gbm": f"{_HERE}.gbm.GeometricBrownianMotion",
        "abm": f"{_HERE}.abm.ArithmeticBrownianMotion",
        "merton": f"{_HERE}.merton.MertonJumpDiffusion",
        "heston": f"{_HERE}.heston.Heston",
        "garch": f"{_HERE}.garch.Garch",
        "regimes": f"{_HERE}.regimes.MarkovRegimes",
        "bootstrap": f"{_HERE}.bootstrap.StationaryBootstrap",
        "correlated": f"{_HERE}.correlated.Correlated",
        "mixture": f"{_HERE}.mixture.Mixture",
    },
)
"""The shipped processes."""
