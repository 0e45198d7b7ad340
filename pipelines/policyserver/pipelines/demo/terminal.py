"""The terminal view: totals above, the newest decisions below; or, without a terminal, one plain line at a time."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from policyserver.client import TrainingIteration
from policyserver.common.figures import charted
from policyserver.pipelines.runtime.node import Node
from policyserver.pipelines.snapshot import Snapshot, SnapshotTaker

REDRAW_S = 0.4
"""Seconds from one drawing of the view to the next."""

PLAIN_S = 5.0
"""Seconds from one plain line to the next."""

_COLUMNS = {
    "node": ("<", 8),
    "episode": ("<", 10),
    "symbol": ("<", 6),
    "bar": (">", 4),
    "price": (">", 8),
    "prediction": (">", 10),
    "action": ("<", 8),
    "position": (">", 8),
    "reward": (">", 7),
}
"""Columns of the table of decisions: the side they stand on, and their least width."""

_BLOCKS = "▁▂▃▄▅▆▇█"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_OTHER_SCREEN, _FIRST_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_DUMB = ("", "dumb", "unknown")
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class TerminalView(Node[Any]):
    """Shows snapshots at its interval.

    On a terminal it draws over itself on the alternate screen. Elsewhere, and where the cursor can't be moved (TERM=dumb), it writes lines.
    """

    def __init__(self, taker: SnapshotTaker, stream: TextIO, headline: Callable[[], str]) -> None:
        """Show what `taker` takes on `stream`, under what `headline` returns."""
        self._is_terminal = stream.isatty() and os.environ.get("TERM", "") not in _DUMB
        super().__init__("terminal", interval_s=REDRAW_S if self._is_terminal else PLAIN_S)
        self._taker = taker
        self._stream = stream
        self._headline = headline
        self._screen = threading.RLock()  # guards the terminal's state; re-entrant, for one signal handler may interrupt another
        self._drawn = False

    @contextmanager
    def suspendable(self) -> Iterator[None]:
        """Let Ctrl-Z stop the process with the first screen and the cursor back, until the block is left. Main thread only."""
        if not self._is_terminal or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
            yield
            return

        def suspend(number: int, frame: FrameType | None) -> None:
            with self._screen:
                self._give_back()
                signal.signal(signal.SIGTSTP, signal.SIG_DFL)
                signal.raise_signal(signal.SIGTSTP)  # returns when the process is continued
                signal.signal(signal.SIGTSTP, suspend)

        signal.signal(signal.SIGTSTP, suspend)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def _process(self, batch: list[Any]) -> None:
        snapshot = self._taker.take()
        if not self._is_terminal:
            self._stream.write(plain_line(snapshot) + "\n")
            self._stream.flush()
            return
        with self._screen:
            if self._in_foreground():
                self._draw(snapshot)

    def _draw(self, snapshot: Snapshot) -> None:
        """Draw a snapshot over the one before."""
        size = shutil.get_terminal_size()
        lines = render(snapshot, self._headline(), size.columns)[: size.lines - 1]
        begin = "" if self._drawn else _OTHER_SCREEN + _HIDE_CURSOR
        self._drawn = True
        self._stream.write(begin + _HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW)
        self._stream.flush()

    def _stop(self) -> None:
        with self._screen:
            self._give_back()

    def _give_back(self) -> None:
        """Bring back the first screen and the cursor."""
        if self._drawn:
            self._drawn = False
            self._stream.write(_SHOW_CURSOR + _FIRST_SCREEN)
            self._stream.flush()

    def _in_foreground(self) -> bool:
        """Whether the terminal is ours: after Ctrl-Z and `bg` it is the shell's."""
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except OSError:  # no terminal that could say
            return True


def plain_line(snapshot: Snapshot) -> str:
    """Return the totals in one line."""
    training = snapshot.server.training or TrainingIteration()
    parts = [
        f"{snapshot.seconds:5.0f} s",
        f"{snapshot.steps:,} steps",
        f"{number(snapshot.steps_per_s, ',.0f')}/s",
        f"{snapshot.episodes_finished} episodes",
        f"p50 {number(snapshot.latency_p50_ms, '.1f')} ms p99 {number(snapshot.latency_p99_ms, '.1f')} ms",
        f"updates {training.learner_updates}",
        f"weights {snapshot.server.weights_seq_no}",
        f"trained {training.steps_total:,} dropped {snapshot.steps_dropped:,}",
        f"return {number(snapshot.return_mean, '+.2f')} (no trade {number(snapshot.no_trade_mean, '+.2f')}, "
        f"random {number(snapshot.random_mean, '+.2f')})",
        f"skill {number(snapshot.skill, '+.4f')}",
    ]
    if snapshot.fallbacks or snapshot.lost:
        parts.append(f"fallbacks {snapshot.fallbacks} lost {snapshot.lost}")
    return " | ".join(parts)


def render(snapshot: Snapshot, headline: str, width: int) -> list[str]:
    """Return the lines of the view, none longer than `width` characters (escape codes apart)."""
    totals = [*_totals(snapshot), *_training(snapshot)]
    columns, *decisions = _decisions(snapshot)
    lines = [(_BOLD, headline), *(("", line) for line in ("", *totals, "")), (_DIM, columns), *(("", line) for line in decisions)]
    return [f"{style}{line[:width]}{_PLAIN if style else ''}" for style, line in lines]


def _totals(snapshot: Snapshot) -> list[str]:
    stats = snapshot.server
    training = stats.training or TrainingIteration()
    lowest, highest = extremes(snapshot.return_curve)
    wanted = f" of {snapshot.steps_wanted:,}" if snapshot.steps_wanted else ""
    return [
        f"episodes    {snapshot.episodes_open} at a time, {snapshot.episodes_finished:,} finished, {snapshot.lost} lost",
        f"steps       {snapshot.steps:,}{wanted}, {number(snapshot.steps_per_s, ',.0f')}/s, {clock(snapshot.seconds)}",
        f"actions     p50 {number(snapshot.latency_p50_ms, '.1f')} ms, p99 {number(snapshot.latency_p99_ms, '.1f')} ms, "
        f"{snapshot.fallbacks} fallbacks",
        f"learner     {training.learner_updates} updates, weights_seq_no {stats.weights_seq_no}, {training.steps_total:,} steps trained, "
        f"{snapshot.steps_dropped:,} dropped, {stats.steps_waiting:,} waiting, {stats.questions_waiting:,} questions wait",
        f"return      {number(snapshot.return_mean, '+.2f')}   no trade {number(snapshot.no_trade_mean, '+.2f')}   "
        f"random {number(snapshot.random_mean, '+.2f')}   (same prices and fees)",
        f"over time   {sparkline(snapshot.return_curve)}  {number(lowest, '+.1f')} to {number(highest, '+.1f')}",
        f"regressor   skill {number(snapshot.skill, '+.4f')}",
    ]


def _training(snapshot: Snapshot) -> list[str]:
    """Return the block of the newest training iteration."""
    training = snapshot.server.training
    if training is None:
        return ["iteration   none yet"]
    figures = ", ".join(f"{name} {number(value, '.4g')}" for name, value in charted(training).items())
    return [
        f"iteration   {training.iteration}: version {training.weights_seq_no}, return {number(training.return_mean, '+.2f')}, "
        f"{training.steps:,} steps, {training.seconds:.1f} s",
        f"            {figures}",
        f"checkpoint  {training.checkpoint_path or 'none yet'}",
    ]


def _decisions(snapshot: Snapshot) -> list[str]:
    """Return the table of the newest decisions, each column as wide as its widest cell, and no narrower than most are."""
    rows = [tuple(_COLUMNS)]
    for shown in snapshot.decisions:
        action = shown.action + (" (own)" if shown.fallback else "")
        price, prediction = f"{shown.price:.2f}", f"{100 * shown.prediction:.3f} %"
        position, reward = f"{shown.position:+.2f}", f"{shown.reward:+.3f}"
        rows.append((shown.node, shown.episode, shown.symbol, str(shown.bar), price, prediction, action, position, reward))
    widths = [max(least, *map(len, cells)) for (_, least), cells in zip(_COLUMNS.values(), zip(*rows, strict=True), strict=True)]
    aligned = [f"{side}{width}" for (side, _), width in zip(_COLUMNS.values(), widths, strict=True)]
    return ["  ".join(format(cell, form) for cell, form in zip(row, aligned, strict=True)).rstrip() for row in rows]


def sparkline(values: tuple[float, ...]) -> str:
    """Draw values as a row of blocks from the lowest to the highest; NaN as a blank."""
    low, high = extremes(values)
    span = high - low or 1.0
    heights = [math.nan if math.isnan(value) else (value - low) / span * len(_BLOCKS) for value in values]
    return "".join(" " if math.isnan(height) else _BLOCKS[min(int(height), len(_BLOCKS) - 1)] for height in heights)


def extremes(values: tuple[float, ...]) -> tuple[float, float]:
    """Return the smallest and the largest value that is not NaN, or NaN."""
    known = [value for value in values if not math.isnan(value)]
    return (min(known), max(known)) if known else (math.nan, math.nan)


def number(value: float | None, form: str) -> str:
    """Format a number; a dash for one that is not known."""
    return "-" if value is None or math.isnan(value) else format(value, form)


def clock(seconds: float) -> str:
    """Format a duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
