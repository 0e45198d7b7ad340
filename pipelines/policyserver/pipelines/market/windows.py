"""Which windows of recorded bars are played: how long they are, when they begin, and which gaps they may have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from policyserver.common.settings import Config
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.calendars import Calendar
from policyserver.pipelines.market.intervals import DAY_NS, HOUR_NS, MINUTE_NS, parse_interval
from policyserver.pipelines.market.unread import refuse_unread
from policyserver.pipelines.market.zones import local_day, to_local, zone_of

BoolArray = npt.NDArray[np.bool_]

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

_USUAL_PART = 10
"""A time from bar to bar is the usual one when it is that of one in so many."""

_HOURS = re.compile(r"(\d\d):([0-5]\d)-(\d\d):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class WindowsConfig(Config):
    """Which windows of recorded bars are episodes, and in which order they are played. Weekday, day and hours are those of `time_zone`."""

    length: str = ""
    """Time that an episode plays, such as "5h" or "1d", in which it has the bars there are; "": `bars_per_episode` bars."""
    gap_limit: str = ""
    """Longest time from a bar to the next, such as "2h", from the bar of the first action on; where episodes start with the day or the
    session, from their first bar on. A window with a longer one is not played. "": any."""
    warmup_gap_limit: str = ""
    """The same among the bars of the warm-up."""
    start: Literal["any", "day", "session"] = "any"
    """Which bar an episode plays first: any; the first of a day; the first of a session of `recorded.files.calendar`."""
    weekdays: tuple[Weekday, ...] = ()
    """Days on which the first bar may be; none: all."""
    hours: str = ""
    """Hours within which every bar played lies, such as "09:30-16:00", or "22:00-05:00" over midnight; "": any."""
    time_zone: str = "UTC"
    """Zone of weekdays, days and hours: "UTC", an offset such as "-05:00", or a name such as "America/New_York"."""
    stride_bars: Annotated[int, Ge(1)] = 1
    """With `start = "any"`: every n-th bar of the span may be the first."""
    overlap: bool | None = None
    """Whether windows may have bars in common that are played; none: where they are drawn at random. Without, each begins where the one
    before ends, or at the next start after it."""
    order: Literal["random", "sequential", "walk_forward"] = "random"
    """`random`: drawn by the seed, the symbols in turn; `sequential`: in the order of time, each window once a round; `walk_forward`: one
    fold of the split after another, training at random, testing each window once."""
    fold_episodes: Annotated[int, Ge(1)] = 1000
    """With `walk_forward` and training: episodes of a fold before the next one's turn; the last fold is stayed with."""
    without_windows: Literal["refuse", "skip"] = "refuse"
    """What is done about a symbol without any window."""

    def _check(self) -> None:
        zone_of(self.time_zone)
        for name in ("length", "gap_limit", "warmup_gap_limit"):
            if text := getattr(self, name):
                parse_interval(text, name)
        if self.hours:
            _parse_hours(self.hours)
        if len(set(self.weekdays)) != len(self.weekdays):
            raise ValueError(f"weekdays: expected each day once, received {self.weekdays}")
        if self.stride_bars > 1 and self.start != "any":
            raise ValueError(f'stride_bars: expected 1 with start = "{self.start}", received {self.stride_bars}')
        if not self.weekdays and not self.hours and self.start != "day":
            refuse_unread(self, ("time_zone",), 'without weekdays, hours or start = "day"')

    def draws(self, *, is_test: bool) -> bool:
        """Return whether windows, of testing or of training, are drawn at random."""
        return self.order == "random" or (self.order == "walk_forward" and not is_test)


@dataclass(frozen=True, slots=True)
class WindowLength:
    """How long the windows are."""

    warmup_bars: int
    """Bars up to that of the first action, at least 1."""
    n_bars: int
    """Bars played, where `time_ns` is 0."""
    time_ns: int
    """Time played; 0: `n_bars` says how much is."""
    interval_ns: int
    """Usual length of a bar: the first bar played begins so long before its end, unless the bar before ends later."""

    @property
    def most_bars(self) -> int:
        """Bars of a window without gaps, warm-up included."""
        played = self.n_bars if not self.time_ns else -(-self.time_ns // max(self.interval_ns, 1))
        return self.warmup_bars + max(played, 1)


@dataclass(frozen=True, slots=True, eq=False)
class WindowTable:
    """The windows of one symbol, or of several on one line of time, in the order of time."""

    first: IntArray
    """Row that each plays first, int64 (w,)."""
    stop: IntArray
    """Row after the last, int64 (w,)."""
    begin_ns: IntArray
    """Time of the first action: end of the bar before the first, int64 (w,)."""
    n_starts: int
    """Rows that could have been the first."""
    left_out: dict[str, int]
    """Reason to number of starts that are no window."""

    def __len__(self) -> int:
        return len(self.first)

    @property
    def text(self) -> str:
        """The counts in words: "412 windows, 37 left out: gap 30, weekday 7"."""
        return counts_text(len(self), self.left_out)


def counts_text(windows: int, left_out: dict[str, int]) -> str:
    """Return how many windows there are, and how many starts are none and why."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items() if count)
    return f"{windows:,} windows" + (f", {sum(left_out.values()):,} left out: {reasons}" if reasons else "")


def find_windows(
    time_ns: IntArray,
    span: tuple[int, int],
    length: WindowLength,
    config: WindowsConfig,
    calendar: Calendar | None = None,
    *,
    is_test: bool = False,
) -> WindowTable:
    """Return the windows of which every bar played lies in a span. Their warm-up may lie before it.

    Args:
        time_ns: Ends of all bars, increasing.
        span: Rows, `start` inclusive, `stop` exclusive.
        length: How long a window is.
        config: Which windows are meant.
        calendar: When the market is open; needed for `start = "session"`.
        is_test: Whether the span is for testing.
    """
    starts = _starts(time_ns, span, length.warmup_bars, config, calendar)
    stops, is_whole = _stops(time_ns, starts, span[1], length)
    left_out: dict[str, int] = {}
    kept = np.ones(len(starts), dtype=np.bool_)
    for reason, fits in (("end of the span", is_whole), *_fits(time_ns, starts, stops, length, config)):
        left_out[reason] = int((kept & ~fits).sum())
        kept &= fits
    first, stop = starts[kept], stops[kept]
    if not (config.draws(is_test=is_test) if config.overlap is None else config.overlap):
        apart = _apart(first, stop)
        left_out["overlap"] = len(first) - len(apart)
        first, stop = first[apart], stop[apart]
    return WindowTable(first, stop, time_ns[first - 1], len(starts), left_out)


def usual_interval(time_ns: IntArray) -> int:
    """Return the commonest time from one bar to the next, nanoseconds; 0 where there are no two bars."""
    steps = np.diff(time_ns)
    if not len(steps):
        return 0
    values, counts = np.unique(steps, return_counts=True)
    return int(values[np.argmax(counts)])


def begins_of(time_ns: IntArray) -> IntArray:
    """Return when bars began of which the ends alone are known, nanoseconds, int64 (n,), none later than it did.

    It is the usual interval before their end, but not before the one before was over. Where less than two in three of the steps are the
    usual one, nothing but the end of the one before tells that a bar had not begun: bars of trades, for example, or two bars a day of
    different lengths.
    """
    if not len(time_ns):
        return time_ns.copy()
    steps, interval_ns = np.diff(time_ns), usual_interval(time_ns)
    before = np.append(time_ns[0] - interval_ns, time_ns[:-1])
    if int((steps == interval_ns).sum()) * 3 < len(steps) * 2:
        return before
    begins: IntArray = np.maximum(before, time_ns - interval_ns)
    return begins


def has_usual_interval(time_ns: IntArray) -> bool:
    """Tell whether at least a tenth of the bars follow each other in the usual interval; bars of trades, for example, have none."""
    steps = np.diff(time_ns)
    return len(steps) > 0 and int((steps == usual_interval(time_ns)).sum()) * _USUAL_PART >= len(steps)


def _starts(time_ns: IntArray, span: tuple[int, int], warmup_bars: int, config: WindowsConfig, calendar: Calendar | None) -> IntArray:
    """Return the rows that may be played first, as far as `start` says."""
    lowest = max(span[0], warmup_bars)
    if config.start == "any":
        rows = np.arange(span[0], span[1], config.stride_bars, dtype=np.int64)
        return rows[rows >= lowest]
    if config.start == "day":
        numbers = local_day(time_ns, config.time_zone)
    elif calendar is None:
        raise ValueError("calendar: expected one with windows that start with the session, received none")
    elif len(time_ns):
        numbers = calendar.sessions(int(time_ns[0]), int(time_ns[-1])).session_of(time_ns)
    else:
        numbers = time_ns
    rows = np.flatnonzero(np.diff(numbers)) + 1
    return rows[(rows >= lowest) & (rows < span[1])]


def _stops(time_ns: IntArray, starts: IntArray, stop: int, length: WindowLength) -> tuple[IntArray, BoolArray]:
    """Return the row after the last of each window, and whether the window is whole: the bars reach to its end."""
    if not length.time_ns:
        stops = starts + length.n_bars
        return stops, stops <= stop
    ends = np.maximum(time_ns[starts - 1], time_ns[starts] - length.interval_ns) + length.time_ns
    stops = np.searchsorted(time_ns, ends, side="right").astype(np.int64)
    return stops, (stops <= stop) & (stops > starts) & (ends <= time_ns[min(stop, len(time_ns) - 1)])


def _fits(time_ns: IntArray, starts: IntArray, stops: IntArray, length: WindowLength, config: WindowsConfig) -> list[tuple[str, BoolArray]]:
    """Return for each condition which windows meet it; what lies beyond the bars is cut off."""
    stops = np.minimum(stops, len(time_ns))
    conditions: list[tuple[str, BoolArray]] = []
    if config.weekdays:
        allowed = np.isin(np.arange(7), [get_args(Weekday).index(day) for day in config.weekdays])
        days = local_day(time_ns[starts], config.time_zone)
        conditions.append(("weekday", allowed[(days + 3) % 7]))  # 1970-01-01 was a Thursday
    if config.hours:
        outside = _counted(~_within_hours(time_ns, length.interval_ns, config))
        conditions.append(("hours", outside[stops] == outside[starts]))
    distances = np.diff(time_ns, prepend=time_ns[:1])
    if config.gap_limit:
        gaps = _counted(distances > parse_interval(config.gap_limit, "gap_limit"))
        inner = starts if config.start == "any" else starts + 1
        conditions.append(("gap", gaps[np.maximum(stops, inner)] == gaps[inner]))
    if config.warmup_gap_limit:
        gaps = _counted(distances > parse_interval(config.warmup_gap_limit, "warmup_gap_limit"))
        conditions.append(("gap in the warm-up", gaps[starts] == gaps[starts - length.warmup_bars + 1]))
    return conditions


def _counted(flags: BoolArray) -> IntArray:
    """Return how many flags are set before each row, int64 (n + 1,)."""
    return np.concatenate([[0], np.cumsum(flags)])


def _within_hours(time_ns: IntArray, interval_ns: int, config: WindowsConfig) -> BoolArray:
    """Tell which bars lie within the hours, from their beginning to their end."""
    opens, closes = _parse_hours(config.hours)
    open_ns = (closes - opens - 1) % DAY_NS + 1
    passed = (to_local(time_ns, zone_of(config.time_zone)) - opens - 1) % DAY_NS + 1
    inside: BoolArray = (passed <= open_ns) & (passed >= interval_ns)
    return inside


def _parse_hours(text: str) -> tuple[int, int]:
    """Return when the hours begin and end, nanoseconds after midnight."""
    if match := _HOURS.fullmatch(text):
        opens, closes = (int(match[i]) * HOUR_NS + int(match[i + 1]) * MINUTE_NS for i in (1, 3))
        if max(opens, closes) <= DAY_NS:
            return opens, closes
    raise ValueError(f'hours: expected a span of the day such as "09:30-16:00", received {text!r}')


def _apart(first: IntArray, stop: IntArray) -> IntArray:
    """Return the places of windows that don't overlap: the first one, and always the next that begins where it ends or later."""
    kept, place = [], 0
    while place < len(first):
        kept.append(place)
        place = int(np.searchsorted(first, stop[place], side="left"))
    return np.array(kept, dtype=np.int64)
