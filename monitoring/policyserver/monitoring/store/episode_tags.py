"""Which values the tags of a run's episodes have, found out by looking at each row once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TAGS = ("symbol", "policy")

ROWS_AT_ONCE = 200_000
"""Most rows of a look, about 50 ms. In a longer run what only older episodes have is found by later looks, from the newest back."""

MOST_RUNS = 64
"""Runs that are remembered; of more, the one that was asked for longest ago is forgotten, and looked at anew."""

Select = Callable[[str, Mapping[str, Any]], list[Any]]


@dataclass(slots=True)
class _Seen:
    """What is known of one run."""

    first: int
    """Rows with ids up to this one were not looked at."""
    last: int
    """Nor were rows with ids above this one."""
    values: dict[str, set[str]] = field(default_factory=lambda: {tag: set() for tag in TAGS})


class EpisodeTags:
    """Remembers the values of the tags `symbol` and `policy`, also of rows that are deleted meanwhile. Not thread-safe."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, _Seen] = OrderedDict()

    def read(self, select: Select, run: str) -> dict[str, set[str]]:
        """Look at rows that are new, and at older ones that were not looked at, and return the values that are known."""
        ((newest,),) = select('SELECT COALESCE(MAX(id), 0) FROM "episode"', {})
        seen = self._runs.get(run)
        if seen is None or newest < seen.last:  # in an emptied table ids begin anew
            seen = self._runs[run] = _Seen(newest, newest)
        self._runs.move_to_end(run)
        if len(self._runs) > MOST_RUNS:
            self._runs.popitem(last=False)
        new = min(newest, seen.last + ROWS_AT_ONCE)
        older = max(0, seen.first - max(0, ROWS_AT_ONCE - (new - seen.last)))
        for after, upto in ((seen.last, new), (older, seen.first)):
            if after < upto:
                window = {"after": after, "upto": upto, "run": run}
                rows = select(f"SELECT DISTINCT {', '.join(TAGS)} FROM episode WHERE id > :after AND id <= :upto AND +run = :run", window)
                for row in rows:
                    for tag, value in zip(TAGS, row, strict=True):
                        seen.values[tag].add(value)
        seen.first, seen.last = older, new
        return seen.values
