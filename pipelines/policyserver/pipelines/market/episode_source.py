"""Where episodes come from: simulated paths, windows of recorded bars, or a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from policyserver.pipelines.market.bars import History, IntArray
from policyserver.pipelines.market.feed import EpisodeBars


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """One episode to be played."""

    symbols: tuple[str, ...]
    """What it trades, K names."""
    number: int
    """Its number among all episodes."""
    bars: EpisodeBars
    """What it is played on."""
    histories: Mapping[str, History] = field(default_factory=dict)
    """By symbol, the recorded bars that it is a window of, one object for all its episodes; none where prices are simulated."""
    first_row: int = 0
    """Where in the histories the window begins."""
    own_rows: IntArray | None = None
    """Of several symbols, whose bars come at times of their own: the newest row of each history at each bar, int64 (t, K)."""
    span: str = ""
    """Which part of the split it is a window of: "train" or "test", with several folds "train 0" and so on; "" without a split."""

    @property
    def first_ns(self) -> int:
        """End of the bar of the first action."""
        return int(self.bars.time_ns[self.bars.warmup_bars - 1])

    @property
    def last_ns(self) -> int:
        """End of the last bar."""
        return int(self.bars.time_ns[-1])

    @property
    def id(self) -> str:
        """Its name: the symbols and the number."""
        return f"{'+'.join(self.symbols)}-{self.number}"


class EpisodeSource(Protocol):
    """Anything that has episodes. Thread-safe: the same number has the same episode, in every thread and at any time."""

    @property
    def slots(self) -> tuple[str, ...]:
        """What the K symbols of an episode are called where no symbol is meant: their own names, or "price" for one of many."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Further columns that the bars have, by their names in the files."""

    def episodes(self, numbers: Sequence[int]) -> list[Episode]:
        """Return fresh episodes by their numbers, from 0."""
