"""What a serving process answers when the daemon asks how serving goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ServingReport:
    """How serving goes, and what ended since the last report."""

    counters: dict[str, Any]
    """The known figures of `ServerStats`."""
    episodes: dict[str, list[Any]] = field(default_factory=dict)
    """Episodes that ended, as columns: the fields of `EPISODE` in `policyserver.monitoring.schema`, and `records_in`."""
    episodes_missing: int = 0
    """Episodes that ended, too, and that were dropped, because they were too many."""
