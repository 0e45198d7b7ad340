"""What spoils learning in a server of the tests while a file says so: a connector `rewards` or `obs`, a learner `lr` or `advantages`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns

from policyserver.server.daemon.fused_learner import FusedPPOLearner

FILE = "SPOILED_LEARNING"
"""Environment variable that names the file."""


def what() -> str:
    return Path(os.environ[FILE]).read_text(encoding="ascii")


class Spoiling(ConnectorV2):  # type: ignore[misc]
    """Put a NaN among the rewards, or an infinity into the observations."""

    def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
        if (column := what()) == "rewards":
            episodes[0].rewards.data[-1] = math.nan
        elif column == "obs":
            episodes[0].observations.data[-2][0] = math.inf  # the last one is RLlib's own
        return batch


def connectors(observation_space: Any, action_space: Any) -> Any:
    return Spoiling(observation_space, action_space)


class SpoiledLearner(FusedPPOLearner):
    """Learn at a rate of 100, or what is worse for what is better."""

    def before_gradient_based_update(self, **arguments: Any) -> None:
        super().before_gradient_based_update(**arguments)
        for optimizer in self._optimizers():
            optimizer.param_groups[0]["lr"] = 100.0 if what() == "lr" else 0.003

    def compute_loss_for_module(self, *, batch: Any, **arguments: Any) -> Any:
        if what() == "advantages":
            batch = {**batch, Columns.ADVANTAGES: -batch[Columns.ADVANTAGES]}
        return super().compute_loss_for_module(batch=batch, **arguments)
