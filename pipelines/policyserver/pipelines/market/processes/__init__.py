"""Price processes, one file each. A process of one's own is a `PriceProcess` in a file of one's own."""

from policyserver.pipelines.market.processes.process import PriceProcess
from policyserver.pipelines.market.registry import Registry

__all__ = ["PROCESSES", "PriceProcess"]

_HERE = "policyserver.pipelines.market.processes"

PROCESSES = Registry("process", PriceProcess, {"ou": f"{_HERE}.ou.OrnsteinUhlenbeck", "gbm": f"{_HERE}.gbm.GeometricBrownianMotion"})
"""The shipped processes."""
