"""What is wrong with a sequence of bars: gaps, bars while the market is closed, spikes, jumps, splits."""

from __future__ import annotations

import numpy as np

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.calendars import Calendar, Sessions
from policyserver.pipelines.market.files.checks import FileRows, moment, note
from policyserver.pipelines.market.files.faults import FaultPolicies, Findings
from policyserver.pipelines.market.files.time_formats import BoolArray
from policyserver.pipelines.market.intervals import DAY_NS, interval_text

_SPLIT_RATIOS = np.array([3 / 2, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100])
_SPLIT_TOLERANCE = 0.01
"""A jump's ratio is a split's within this, by the prices before and after the night."""


def commonest_step(time_ns: IntArray) -> int:
    """Return the commonest distance between two bars, the shortest of equally common ones; 0 where there are no two bars."""
    steps = np.diff(time_ns)
    if not len(steps):
        return 0
    values, counts = np.unique(steps[:: 1 + len(steps) // 100_000], return_counts=True)
    return int(values[np.argmax(counts)])


def check_sequence(series: FileRows, interval_ns: int, is_start: bool, findings: Findings, calendar: Calendar | None) -> BoolArray:
    """Note gaps, bars while the market is closed, jumps and splits; return which rows are left.

    Args:
        series: Rows with increasing times.
        interval_ns: Length of a bar; 0 where it is not known.
        is_start: Whether a bar is stamped with its beginning.
        findings: Where faults are noted.
        calendar: When the market is open; None: a gap is any distance that is longer than the interval.
    """
    kept = np.ones(len(series), dtype=np.bool_)
    if interval_ns and len(series) and (calendar is None or interval_ns > DAY_NS):
        _note_distances(series, interval_ns, findings)
    elif interval_ns and len(series) and calendar is not None:
        sessions = calendar.sessions(int(series.time_ns[0]), int(series.time_ns[-1]))
        is_closed = _check_calendar(series, interval_ns, is_start, findings, sessions)
        if findings.policies.closed != "keep":
            kept &= ~is_closed
    spikes, jumps, splits = _jumps(series, findings.policies)
    close = series.columns["close"]
    for kind, rows in (("spike", spikes), ("jump", jumps), ("split", splits)):
        note(findings, kind, series, rows, lambda row: f": close {close[row]:.10g} after {close[row - 1]:.10g}")
    if findings.policies.spike != "keep":
        kept[spikes] = False
    return kept


def _note_distances(series: FileRows, interval_ns: int, findings: Findings) -> None:
    steps = np.diff(series.time_ns)
    gaps = np.flatnonzero(steps > interval_ns + interval_ns // 16) + 1  # a day has 25 hours once a year, which is no gap
    note(findings, "gap", series, gaps, lambda row: f": {interval_text(int(steps[row - 1]))} after {moment(series.time_ns[row - 1])}")


def _check_calendar(series: FileRows, interval_ns: int, is_start: bool, findings: Findings, sessions: Sessions) -> BoolArray:
    """Note bars that are not there while the market is open, and those that are while it is closed; return which are."""
    if interval_ns == DAY_NS:
        days = sessions.days
        date_ns = (series.time_ns + DAY_NS // 2) // DAY_NS * DAY_NS  # midnight of any zone becomes that of UTC
        number = np.searchsorted(days, date_ns)
        is_closed = days[np.minimum(number, len(days) - 1)] != date_ns
    else:
        opened = sessions.open_time(series.time_ns)
        shifted = sessions.open_time(series.time_ns + (interval_ns if is_start else -interval_ns))
        is_closed = shifted == opened
        number = (opened + interval_ns // 2) // interval_ns
    note(findings, "closed", series, np.flatnonzero(is_closed), lambda row: f": {moment(series.time_ns[row])} is in no session")
    n_missing = np.diff(number, prepend=number[0] - 1) - 1
    gaps = np.flatnonzero(n_missing > 0)
    note(findings, "gap", series, gaps, lambda row: f": {n_missing[row]} bars are not there after {moment(series.time_ns[row - 1])}")
    closed: BoolArray = is_closed
    return closed


def _jumps(series: FileRows, policies: FaultPolicies) -> tuple[IntArray, IntArray, IntArray]:
    """Return the rows of spikes, of jumps and of what looks like a split."""
    nothing = np.empty(0, dtype=np.int64)
    close = series.columns["close"]
    if len(close) < 3 or not ((close > 0) & (close < np.inf)).all():
        return nothing, nothing, nothing
    returns = np.diff(np.log(close), prepend=np.log(close[0]))
    sizes = np.abs(returns)
    middle = len(sizes) // 2
    limit = max(policies.jump_sigmas * 1.4826 * float(np.partition(sizes, middle)[middle]), policies.jump_floor)
    rows = np.flatnonzero(sizes > limit)
    following = returns[np.minimum(rows + 1, len(close) - 1)]
    is_back = (np.abs(following) > limit) & (np.abs(returns[rows] + following) < np.abs(returns[rows]) / 4)
    spikes = rows[is_back]
    rows = rows[~is_back & ~np.isin(rows, spikes + 1)]
    is_split = _is_split(series, rows)
    return spikes, rows[~is_split], rows[is_split]


def _is_split(series: FileRows, rows: IntArray) -> BoolArray:
    """Tell which jumps have a ratio that splits have, by the open after the night; those that the file announces aren't meant."""
    before, after = series.columns["close"][rows - 1], series.columns["open"][rows]
    ratio = np.where(after > 0, before / np.where(after > 0, after, 1), 0)
    ratio = np.where(ratio < 1, 1 / np.maximum(ratio, 1e-300), ratio)
    is_near: BoolArray = (np.abs(ratio[:, None] / _SPLIT_RATIOS - 1) < _SPLIT_TOLERANCE).any(axis=1)
    announced = series.columns.get("split")
    if announced is not None:
        is_near &= ~(np.nan_to_num(announced[rows]) > 0)
    return is_near
