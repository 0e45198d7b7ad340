"""What the page shows of a store: sections, each read again only when its measurements have new points."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from monitoring.reader import StoreReader

DECISIONS = 12
"""Newest decisions shown."""

_MAX_READING_SHARE = 0.05
"""Largest share of the time spent on reading one section: the slower its query, the rarer it is read."""


def _newest(reader: StoreReader, measurement: str, run: str) -> dict[str, Any] | None:
    rows = reader.newest(measurement, run, limit=1)
    return rows[0] if rows else None


@dataclass(frozen=True, slots=True)
class _Section:
    """One part of the page."""

    name: str
    measurement: str
    """Measurement whose new points change the section."""
    read: Callable[[StoreReader, str], Any]
    """Reads the section's data of a run."""


_SECTIONS = (
    _Section("decisions", "step", lambda reader, run: reader.newest("step", run, limit=DECISIONS)),
    _Section("server", "server", lambda reader, run: _newest(reader, "server", run)),
    _Section("train", "train", lambda reader, run: _newest(reader, "train", run)),
    _Section("returns", "episode", lambda reader, run: reader.returns(run)),
    _Section("learner", "train", lambda reader, run: reader.learner(run)),
    _Section("serving", "server", lambda reader, run: reader.serving(run)),
)


class Feed:
    """Follows one run of a store for one viewer."""

    def __init__(self, reader: StoreReader, run: str | None) -> None:
        """Follow the named run, or else the newest one there is at the first point."""
        self._reader = reader
        self._run = run
        self._runs: list[str] | None = None
        self._shown: dict[str, int] = {}
        self._due: dict[str, float] = {}

    def news(self) -> Iterator[tuple[str, Any]]:
        """Read the sections that changed since the last call, as (name, data); the first is `run`, the run followed and those there are."""
        newest_ids = self._reader.newest_ids()
        if not self._runs:
            runs = self._reader.runs()
            self._run = self._run or next(iter(runs), None)
            if runs != self._runs:
                self._runs = runs
                yield "run", {"run": self._run, "runs": runs}
        if self._run is None:
            return
        for section in _SECTIONS:
            if self._shown.get(section.name) != newest_ids[section.measurement] and self._is_due(section.name):
                begun = time.monotonic()
                data = section.read(self._reader, self._run)
                self._shown[section.name] = newest_ids[section.measurement]
                self._due[section.name] = begun + (time.monotonic() - begun) / _MAX_READING_SHARE
                yield section.name, data

    def _is_due(self, section: str) -> bool:
        """Whether enough time has passed since the section was read."""
        return time.monotonic() >= self._due.get(section, 0.0)
