"""What the page shows of a store: sections. Only new rows are read, and only what changed is sent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from policyserver.monitoring import recorded_prices
from policyserver.monitoring.page.buckets import Buckets
from policyserver.monitoring.page.finished_episodes import FinishedEpisodes
from policyserver.monitoring.page.marks import Checkpoints, Marks, gaps_s, thinned_s
from policyserver.monitoring.page.running_episodes import RunningEpisodes
from policyserver.monitoring.page.sections import SOURCES
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.page.serving_totals import ServingTotals
from policyserver.monitoring.panels.table import Columns
from policyserver.monitoring.schema import MEASUREMENTS
from policyserver.monitoring.store.reader import StoreReader

DECISIONS = 12
"""Newest decisions shown."""

_BUCKETS = 240
"""Least number of buckets of a range of time; the whole run has up to twice as many."""

_LEAST_WIDTH_S = 2
"""Narrowest bucket, seconds: counters are recorded once a second, and each bucket should hold at least one."""

_CHOICES_EVERY_S = 5.0
"""Time from one look for new runs, symbols and policies to the next."""

_MAX_READING_SHARE = 0.02
"""Largest share of a core for one section after its first reading: the more it costs, the rarer it is read."""

_STATE_EVERY_S = 1.0
"""Time from one look at the run's state and marks to the next."""

LIVE_S = 10.0
"""Greatest age of the newest point of a run that is live: its processes record once a second."""

_Curves = Buckets | FinishedEpisodes
_Read = Callable[[dict[str, int], bool], Any]
"""Reads a section up to the newest ids, the first time (True) or again; None if nothing changed."""

_STEADY = ("serving", "pipeline")
"""Sections that running processes record once a second."""


class Feed:
    """Follows a selection of a store for one viewer."""

    def __init__(self, reader: StoreReader, selection: PageSelection) -> None:
        """Follow the selected run, or the newest one when the first point comes."""
        self._reader = reader
        self._selection = selection
        self._choices: dict[str, Any] = {}
        self._choices_due = 0.0
        self._state: dict[str, Any] = {}
        self._state_due = 0.0
        self._view: _View | None = None
        self._file = reader.files

    def changes(self) -> Iterator[tuple[str, Any]]:
        """Read what changed since the last call, as (section, data).

        `choices` comes first: what is selected, and what could be. Then comes `state`: whether the run is live.
        """
        newest_ids = self._reader.newest_ids()
        if self._reader.files != self._file:  # a new store took the place of a damaged one
            self._file = self._reader.files
            self._view = None
        if time.monotonic() >= self._choices_due or self._view is None:
            self._choices_due = time.monotonic() + _CHOICES_EVERY_S
            if (choices := self._read_choices()) != self._choices:
                self._choices = choices
                yield "choices", choices
        if time.monotonic() >= self._state_due:
            self._state_due = time.monotonic() + _STATE_EVERY_S
            if (state := self._read_state()) != self._state:
                self._state = state
                yield "state", state
        if self._view is None:
            run = self._choices["run"]
            times_ns = self._reader.time_range_ns(run) if run is not None else None
            if times_ns is None:
                return
            self._view = _View(self._reader, self._selection, run, *times_ns)
        yield from self._view.changes(newest_ids)

    def _read_state(self) -> dict[str, Any]:
        """Return the `state` of the run and the time of its newest point: `empty` without a run, `unknown` if the run isn't there."""
        run = self._choices["run"]
        times_ns = self._reader.time_range_ns(run) if run is not None else None
        if times_ns is None:
            return {"state": "empty" if run is None else "unknown", "newest_s": None}
        newest_s = times_ns[1] * 1e-9
        alive = time.time() - newest_s < LIVE_S
        return {"state": "live", "newest_s": None} if alive else {"state": "silent", "newest_s": newest_s}

    def _read_choices(self) -> dict[str, Any]:
        runs = self._reader.runs()
        run = self._selection.run or self._choices.get("run") or next(iter(runs), None)
        tags = self._reader.episode_tags(run) if run is not None else {"symbol": [], "policy": []}
        note = recorded_prices.note(self._reader.recorded_prices(run)) if run is not None else ""
        return {"run": run, "runs": runs, "symbols": tags["symbol"], "policies": tags["policy"], "note": note}


class _View:
    """The selected part of one run."""

    def __init__(self, reader: StoreReader, selection: PageSelection, run: str, first_ns: int, last_ns: int) -> None:
        """Choose the width of the buckets, without reading."""
        self._reader = reader
        self._selection = selection
        self._run = run
        begin_ns = max(first_ns, last_ns - selection.range_s * 10**9) if selection.range_s else first_ns
        length_ns = selection.range_s * 10**9 if selection.range_s else last_ns - first_ns
        self._width_ns = _width_ns(length_ns)
        self._length_ns = selection.range_s * 10**9 if selection.range_s else None
        self._first_bucket = begin_ns // self._width_ns
        self._newest_bucket = last_ns // self._width_ns
        cover = selection, run, self._width_ns, begin_ns
        self._curves: list[_Curves] = [FinishedEpisodes(*cover), *(Buckets(source, *cover) for source in SOURCES)]
        self._running = RunningEpisodes(selection, run)
        self._serving = ServingTotals(selection, run)
        self._checkpoints = Checkpoints(selection, run)
        self._marks: Marks = {}
        self._marks_due = 0.0
        self._seen: dict[str, object] = {}
        self._due: dict[str, float] = {}
        self._sections: dict[str, tuple[tuple[str, ...], _Read]] = {
            "decisions": (("step",), lambda *_: self._newest_rows("step", DECISIONS)),
            "train": (("train",), lambda *_: self._newest_rows("train", 1)),
            "server": (("server",), self._read_server),
            "checkpoints": (("train",), lambda newest_ids, _: self._checkpoints.read(self._reader, newest_ids["train"])),
            "running": (("step", "episode"), self._read_running),
        } | {curves.name: ((curves.measurement.name,), partial(self._read_curves, curves)) for curves in self._curves}

    def changes(self, newest_ids: dict[str, int]) -> Iterator[tuple[str, Any]]:
        """Read what changed: each section whose measurements have new rows, unless it is too soon to read it again."""
        for name, (measurements, read) in self._sections.items():
            state = [newest_ids[measurement] for measurement in measurements]
            if self._seen.get(name) == state or time.monotonic() < self._due.get(name, 0.0):
                continue
            is_first = name not in self._seen
            self._seen[name] = state
            begun = time.thread_time()
            data = read(newest_ids, is_first)
            pause_s = 0.0 if is_first else (time.thread_time() - begun) / _MAX_READING_SHARE
            self._due[name] = time.monotonic() + pause_s
            if data is not None:
                yield name, data
        yield from self._keep_the_number_of_buckets()
        if time.monotonic() >= self._marks_due:
            self._marks_due = time.monotonic() + _STATE_EVERY_S
            if (marks := self._read_marks()) != self._marks:
                self._marks = marks
                yield "marks", marks

    def _newest_rows(self, measurement: str, limit: int) -> list[dict[str, Any]]:
        return self._reader.newest(measurement, self._run, limit, tags=self._selection.tags(MEASUREMENTS[measurement]))

    def _read_server(self, newest_ids: dict[str, int], _: bool) -> list[dict[str, Any]]:
        self._serving.read(self._reader, newest_ids["server"])
        row = self._serving.row(self._reader)
        return [row] if row else []

    def _read_running(self, newest_ids: dict[str, int], is_first: bool) -> dict[str, Any] | None:
        changed = self._running.read(self._reader, newest_ids)
        return {"columns": _listed(self._running.columns())} if changed or is_first else None

    def _read_curves(self, curves: _Curves, newest_ids: dict[str, int], is_first: bool) -> dict[str, Any] | None:
        changed_from = curves.read(self._reader, newest_ids[curves.measurement.name])
        if is_first:
            return self._worded(curves, None)
        return self._worded(curves, changed_from) if changed_from is not None else None

    def _read_marks(self) -> Marks:
        """Return the marks of the time axes."""
        times_ns = {"restarts": self._serving.restarts_ns(), "checkpoints": self._checkpoints.written_ns}
        begin_ns = self._first_bucket * self._width_ns
        thinned: Marks = {name: thinned_s(times, begin_ns, self._width_ns) for name, times in times_ns.items()}
        steady = (curves for curves in self._curves if isinstance(curves, Buckets) and curves.name in _STEADY)
        return thinned | {"gaps": {curves.name: gaps_s(curves.numbers, self._width_ns * 1e-9) for curves in steady}}

    def _worded(self, curves: _Curves, since: int | None) -> dict[str, Any]:
        """Return the data of a section from a bucket on, or of all."""
        newest = curves.newest
        self._newest_bucket = max(self._newest_bucket, newest if newest is not None else 0)
        columns = curves.columns(self._first_bucket if since is None else since)
        begin = self._first_bucket * self._width_ns * 1e-9
        return {"from_s": None if since is None else since * self._width_ns * 1e-9, "begin_s": begin, "columns": _listed(columns)}

    def _keep_the_number_of_buckets(self) -> Iterator[tuple[str, Any]]:
        """Move the range along with the run, or for a whole run widen the buckets and send every section anew."""
        if self._length_ns is not None:
            self._first_bucket = max(self._first_bucket, self._newest_bucket - self._length_ns // self._width_ns)
            for curves in self._curves:
                curves.forget(self._first_bucket)
        elif self._newest_bucket - self._first_bucket >= 2 * _BUCKETS:
            self._width_ns *= 2
            self._first_bucket //= 2
            self._newest_bucket //= 2
            for curves in self._curves:
                curves.coarsen()
                yield curves.name, self._worded(curves, None)


def _width_ns(length_ns: int) -> int:
    """Return the width of the buckets for a length of time: the narrowest, doubled as often as necessary."""
    width_ns = _LEAST_WIDTH_S * 10**9
    while length_ns >= width_ns * 2 * _BUCKETS:
        width_ns *= 2
    return width_ns


def _listed(columns: Columns) -> dict[str, list[float | None]]:
    """Turn columns into lists for JSON: six digits, and null for NaN; times keep all digits."""
    return {name: column.tolist() if name == "time_s" else [_short(value) for value in column.tolist()] for name, column in columns.items()}


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
