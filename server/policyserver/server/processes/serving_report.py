"""What a serving process answers when the daemon asks how serving goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from policyserver.common.server_stats import PolicyFigures

Histogram = tuple[Sequence[int], float]
"""Counts of classes whose bounds double, and the sum of all values."""


@dataclass(frozen=True, slots=True)
class ServingReport:
    """How serving goes, and what ended since the last report."""

    counters: dict[str, Any]
    """The known figures of `ServerStats`."""
    episodes: dict[str, list[Any]] = field(default_factory=dict)
    """Episodes that ended, as columns: the fields of `EPISODE` in `policyserver.monitoring.schema`, and `records_in`, `decided_by` and
    `greedy`."""
    episodes_missing: int = 0
    """Episodes that ended, too, and that were dropped, because they were too many."""
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    """gRPC calls that ended, by method and status, since the process began."""
    rows: Histogram = ((), 0.0)
    """Rows of the passes."""
    phases: dict[str, Histogram] = field(default_factory=dict)
    """How long the parts of a pass took: counts by microseconds, sum in seconds."""
    queues: dict[str, float] = field(default_factory=dict)
    """What waits and is held now."""
    process: dict[str, float] = field(default_factory=dict)
    """What the process takes of the machine."""
    by_hand: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """By client, of those that chose actions themselves: actions that it was answered, that it chose, and of these overrides."""
    by_hand_dropped: int = 0
    """Such clients that are no longer told of, because they were too many."""
    policies: tuple[PolicyFigures, ...] = ()
    """What the episodes of each policy came to, since the process began."""
    shadow: str = ""
    """Name of the policy that shadows; empty: none does."""
    shadow_actions: list[Any] = field(default_factory=list)
    """What it would have done since the last report: `ShadowActions`."""
    episodes_from: int = 0
    """Number of the first of `episodes`, from 0, among all that ended since the process began."""
    addresses: tuple[str, ...] = ()
    """Where clients reach the process."""
    number: int = 0
    """RLlib's index of the serving actor, from 1; 0 where the first process serves."""
    leaves: bool = False
    """Whether it begins no new episodes any more, for it is to end."""
    host: str = ""
    """Name of its machine, on a cluster."""
    node_address: str = ""
    """Address by which Ray knows that machine, on a cluster."""
