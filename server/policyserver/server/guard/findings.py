"""Why an update was refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy.typing as npt

BATCH, LOSS, WEIGHTS, OPTIMIZER, MOVE, KL, RETURN = "batch", "loss", "weights", "optimizer", "move", "kl", "return"

_LESS = "lower the learning rate, or clip gradients by algorithm.training.grad_clip"
ADVICE = {
    BATCH: "look at the connectors and callbacks that change what is learned from",
    LOSS: f"{_LESS}, and look at the scale of the rewards",
    WEIGHTS: _LESS,
    OPTIMIZER: _LESS,
    MOVE: f"{_LESS}; guard.max_move bounds it",
    KL: f"{_LESS}; guard.max_kl bounds it",
    RETURN: f"look at the rewards and at what clients play, and {_LESS}",
}
"""What to do about each reason."""


@dataclass(frozen=True)
class RefusedUpdate:
    """One update that was refused and undone."""

    reason: str
    """A key of `ADVICE`."""
    what: str
    """What was found, in which array."""
    weights_seq_no: int
    """Policy version that the update would have made."""
    in_a_row: int
    """Updates refused without a good one between them, this one included."""
    batch: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """What the update learned from, by module and column; empty if it is too large to keep."""
    is_by_another: bool = False
    """Whether it is another learner's finding, which this one followed."""


def of_all_learners(findings: Sequence[Sequence[RefusedUpdate]]) -> list[RefusedUpdate]:
    """Return one finding for each update that several learners undid together: that of the learner that found something."""
    by_version: dict[int, RefusedUpdate] = {}
    for finding in sorted(chain.from_iterable(findings), key=lambda finding: finding.is_by_another):
        by_version.setdefault(finding.weights_seq_no, finding)
    return [by_version[version] for version in sorted(by_version)]
