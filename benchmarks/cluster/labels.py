"""Actions that say which observation they answer: a client sees at once when it got one that was meant for another episode.

An observation begins with a label. The net of `labelled_net` can take only actions of that label, of which it learns to choose one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LABELS = 64
CHOICES = 2
"""Actions of each label."""
ACTIONS = LABELS * CHOICES
NUMBERS = 10
"""Of an observation, the label among them."""


def observations(random: np.random.Generator, rows: int) -> npt.NDArray[np.float32]:
    """Draw observations, float32[rows, NUMBERS]. The label over LABELS is the first number, which is exact in binary."""
    drawn = random.standard_normal((rows, NUMBERS), dtype=np.float32)
    drawn[:, 0] = random.integers(LABELS, size=rows) / LABELS
    return drawn


def labels_of(observed: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the labels of observations, int64[rows]."""
    return np.rint(observed[:, 0] * LABELS).astype(np.int64)


def mixed_up(observed: npt.NDArray[np.float32], actions: npt.NDArray[Any]) -> int:
    """Count the actions that answer an observation of another label. Of two that are exchanged one in LABELS pairs is not seen."""
    return int(np.count_nonzero(actions // CHOICES != labels_of(observed)))


def is_right(observed: npt.NDArray[np.float32], actions: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell which actions are the choice that the policy is to learn."""
    right: npt.NDArray[np.bool_] = actions % CHOICES == labels_of(observed) % CHOICES
    return right
