"""Which episodes of a run have been played, by what its store has of them."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

import numpy as np

from policyserver.monitoring.store.reader import StoreReader
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.bars import IntArray

logger = logging.getLogger(__name__)

_WITH_EPISODES = ("episode", "step")
"""Measurements that name episodes: after a kill those that were open have steps, and no point of their own."""


def played_rounds(store: Path, config: PipelineConfig) -> IntArray:
    """Return how many episodes each slot of a run has begun, int64 (concurrent,); those without a recorded step don't count.

    Args:
        store: The run's; what can't be read of it is logged, and counts as nothing.
        config: The run's settings.
    """
    concurrent = config.episodes.concurrent
    rounds: IntArray = np.zeros(concurrent, dtype=np.int64)
    try:
        names = _episodes(store, config) if store.exists() else []
    except (OSError, ValueError, sqlite3.Error) as error:
        logger.warning("%s: which episodes the run has played can't be read: %s", store, error)
        return rounds
    ends = [name.rpartition("-")[2] for name in names]
    numbers = np.array([int(end) for end in ends if end.isdecimal()], dtype=np.int64)
    np.maximum.at(rounds, numbers % concurrent, numbers // concurrent + 1)
    return rounds


def _episodes(store: Path, config: PipelineConfig) -> list[str]:
    """Read the names of the run's episodes; the server's points of other clients' episodes have another `process`."""
    with contextlib.closing(StoreReader(store)) as reader:
        newest = reader.newest_ids()
        parts = [f"SELECT episode FROM {name} WHERE run = :run AND process = :process" for name in _WITH_EPISODES if newest[name]]
        if not parts:
            return []
        found = reader.select(" UNION ".join(parts), {"run": config.recording.run, "process": config.prices.name})
    return [name for (name,) in found]
