"""Looks for numbers that are not finite in what a checkpoint would restore: weights, optimizers, connectors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.server.daemon.served_state import SERVED_FILE

_PARTS = ("learner_group", "env_runner")
"""RLlib's folders of the learner and of the env runner; its counters and metrics lie elsewhere, and may be NaN."""
_STATES = "*state.pkl"


def first_not_finite(checkpoint: Path) -> str:
    """Name the first array with a NaN or an infinity in a checkpoint's folder, with its file, how many and where; "" if all are finite.

    The folder must be known to be whole and ours, for its files are pickles. An array whose only such numbers are -inf is let pass: a net
    excludes actions by these.
    """
    parts = [path for part in _PARTS for path in sorted((checkpoint / part).rglob(_STATES))]
    for path in [checkpoint / SERVED_FILE, *parts]:
        if not path.is_file():  # an older version wrote the checkpoint
            continue
        try:
            state = pickle.loads(path.read_bytes())
        except Exception:  # whatever a pickle raises; restoring says what it needs
            continue
        for name, array in _arrays(state):
            if np.isnan(array).any() or np.isposinf(array).any():
                bad = np.argwhere(~np.isfinite(array))
                first = array[tuple(bad[0])]
                count = f"{len(bad):,} of {array.size:,} numbers"
                return f"{path.relative_to(checkpoint)}, {name}: {count} are not finite, the first is {first:g} at {bad[0].tolist()}"
    return ""


def _arrays(state: Any, name: str = "") -> Iterator[tuple[str, npt.NDArray[np.floating[Any]]]]:
    """Yield the floating arrays of a nested state by their paths."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from _arrays(value, f"{name}/{key}" if name else str(key))
    elif isinstance(state, list | tuple):
        for place, value in enumerate(state):
            yield from _arrays(value, f"{name}/{place}")
    elif hasattr(state, "detach"):  # a tensor, without an import of torch
        yield from _arrays(state.detach().cpu().double().numpy(), name)
    elif isinstance(state, np.ndarray | np.floating) and np.issubdtype(state.dtype, np.floating):
        yield name, np.asarray(state)
