"""How long the embedded store keeps points, and in how much detail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from policyserver.common.settings import Config


@dataclass(frozen=True)
class RetentionConfig(Config):
    """How long points stay as they were written.

    Older steps, orders and their events, training iterations and reports of the regressor are merged by the minute into one row of counts,
    sums and extremes for each series, so that sums over a run stay exact. Of the counters of server, nodes and sinks, and of a shadow's
    actions, the last of each minute stay. Episodes are kept. Merging is on by default, because raw steps fill a disk within days and no
    page or ledger needs them. To keep each step, set `raw_s` and `raw_points` to none.
    """

    raw_s: Annotated[float, Gt(0)] | None = 86_400.0
    """Age from which points are merged, seconds. None: at any age they stay."""
    raw_points: Annotated[int, Ge(1)] | None = 2_000_000
    """Newest points of each measurement that may stay unmerged, at any age. None: any number."""
    keep_s: Annotated[float, Gt(0)] | None = None
    """Age from which all points are deleted, merged ones too, seconds. None: never."""
    interval_s: Annotated[float, Gt(0)] = 10.0
    """Time between looks for old points, seconds."""
