"""How long the embedded store keeps what it was given, and in how much detail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetentionConfig:
    """How long points stay as they were written.

    Older steps, orders, training iterations and reports of the regressor are merged, minute by minute, into one row of counts, sums and
    extremes for each series, so that sums over a run stay exact; of the counters of server, nodes and sinks, the last of each minute stay.
    Episodes are kept.
    It is on by default, because raw steps fill a disk within days and no page or ledger needs them; where each old step matters,
    `raw_s` and `raw_points` are none.
    """

    raw_s: float | None = 86_400.0
    """Age from which points are merged, seconds. None: age does not matter."""
    raw_points: int | None = 2_000_000
    """Newest points of each measurement that may stay unmerged, whatever their age. None: any number."""
    keep_s: float | None = None
    """Age from which points of every kind are deleted, merged ones too, seconds. None: never."""
    interval_s: float = 10.0
    """Time between looks for points that have grown old, seconds."""

    def __post_init__(self) -> None:
        for name in ("raw_s", "keep_s"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name}: expected more than 0 seconds, or none for never, received {value}")
        if self.raw_points is not None and self.raw_points < 1:
            raise ValueError(f"raw_points: expected 1 point or more, or none for any number, received {self.raw_points}")
        if not self.interval_s > 0.0:
            raise ValueError(f"interval_s: expected more than 0 seconds, received {self.interval_s}")
