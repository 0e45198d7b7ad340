"""A learner whose update computes on while a file is there: what a test does meanwhile is done in the middle of an update."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from policyserver.server.daemon.fused_learner import FusedPPOLearner

FILE = "HELD_UPDATE"
"""Environment variable that names the file."""
HELD = ".held"
"""Ending of the name of the file beside it that says that an update is held."""


class HeldLearner(FusedPPOLearner):
    """Takes the processor as an update does, until the file is gone."""

    def before_gradient_based_update(self, **arguments: Any) -> None:
        super().before_gradient_based_update(**arguments)
        file = Path(os.environ[FILE])
        numbers = torch.ones(64, 64)
        while file.exists():
            file.with_name(file.name + HELD).touch()
            for _ in range(100):
                numbers @ numbers
