"""Where episodes come from: simulated paths, windows of recorded bars, or a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from policyserver.pipelines.market.bars import History, IntArray
from policyserver.pipelines.market.feed import EpisodeBars

MOST_SYMBOL_LETTERS = 64
"""Longest name of a symbol: it is in every point of the record."""

MOST_NAME_BYTES = 128
"""Longest name of what an episode trades, as UTF-8: it is in every point, and in the id that the server is told, which takes 256."""


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
    def traded(self) -> str:
        """What it trades in one name, of `MOST_NAME_BYTES` at most: of many symbols the first, and how many more there are."""
        name = "+".join(self.symbols)
        if len(name.encode()) <= MOST_NAME_BYTES:
            return name
        count, room = 1, MOST_NAME_BYTES - len(f"+{len(self.symbols)}more")
        while count < len(self.symbols) and len("+".join(self.symbols[: count + 1]).encode()) <= room:
            count += 1
        shown, more = "+".join(self.symbols[:count]).encode()[:room].decode(errors="ignore"), len(self.symbols) - count
        return f"{shown}+{more}more" if more else shown

    @property
    def id(self) -> str:
        """Its name: what it trades and the number."""
        return f"{self.traded}-{self.number}"


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
