"""The terminal view shows totals and decisions within the width, dashes for what is unknown, and plain lines without a terminal."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest

from policyserver.client import ServerStats, TrainingIteration
from policyserver.pipelines.demo import terminal
from policyserver.pipelines.demo.terminal import TerminalView, clock, plain_line, render, sparkline
from policyserver.pipelines.run_state import ShownDecision
from policyserver.pipelines.snapshot import Snapshot, SnapshotTaker

TRAINING = TrainingIteration(7, 7, 1.5, 0.25, 0.011, 0.9, 4_000, 28_000, 1.2, 0.8, 7, "runs/x/checkpoints/checkpoint-00000001", 1.0, 5e-4)
STATS = ServerStats(
    boot_id="boot",
    uptime_s=10.0,
    clients_connected=1,
    episodes_open=64,
    episodes_started=70,
    episodes_finished=6,
    actions=30_000,
    batches=1_000,
    reward_sum=-12.0,
    steps_completed=30_000,
    steps_handed_off=28_000,
    steps_waiting=123,
    weights_seq_no=7,
    staleness_mean=1.0,
    training=TRAINING,
)


def decision(bar: int) -> ShownDecision:
    action = ("sell", "hold", "buy")[bar % 3]
    return ShownDecision(bar, 101.25, 0.001, action, bar == 1, 7, f"policy-{1 + bar % 2}", f"AAA-{bar}", "AAA", 1.0, -0.5)


SNAPSHOT = Snapshot(
    seconds=75.0,
    episodes_open=64,
    episodes_finished=6,
    steps=30_000,
    steps_wanted=400_000,
    steps_per_s=2_345.6,
    latency_p50_ms=5.1,
    latency_p99_ms=20.2,
    fallbacks=0,
    lost=0,
    return_mean=3.21,
    no_trade_mean=0.0,
    random_mean=-17.5,
    return_curve=(-17.0, -5.0, 3.2),
    skill=0.0213,
    decisions=tuple(decision(bar) for bar in range(12)),
    server=STATS,
    steps_dropped=0,
)
NOTHING_YET = replace(
    SNAPSHOT,
    steps_per_s=math.nan,
    latency_p50_ms=math.nan,
    latency_p99_ms=math.nan,
    return_mean=math.nan,
    no_trade_mean=math.nan,
    random_mean=math.nan,
    return_curve=(),
    skill=math.nan,
    decisions=(),
    server=ServerStats(),
)


class Taker(SnapshotTaker):
    def __init__(self) -> None:
        self.taken = 0

    def take(self) -> Snapshot:
        self.taken += 1
        return SNAPSHOT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_view_has_the_totals_and_a_dozen_decisions() -> None:
    text = "\n".join(render(SNAPSHOT, "page http://127.0.0.1:1", 140))
    for part in (
        "page http://127.0.0.1:1",
        "64 at a time",
        "30,000 of 400,000",
        "2,346/s",
        "p50 5.1 ms, p99 20.2 ms",
        "7 updates, weights_seq_no 7, 28,000 steps trained, 0 dropped",
        "+3.21",
        "no trade +0.00",
        "random -17.50",
        "skill +0.0213",
        "KL divergence 0.011",
        "entropy 0.9, learning rate 0.0005",
        "checkpoint-00000001",
    ):
        assert part in text
    rows = [line for line in text.splitlines() if line.startswith("policy-")]
    assert len(rows) == 12
    assert rows[1].split() == ["policy-2", "AAA-1", "AAA", "1", "101.25", "0.100", "%", "hold", "(own)", "+1.00", "-0.500"]


def test_the_columns_of_decisions_are_as_wide_as_what_several_symbols_and_long_actions_need() -> None:
    symbols = "AAA+BBB+CCC+DDD+EEE"
    wide = replace(decision(3), action="+0.5 -0.3 +1.0 +0.0 -1.0 +0.2", episode=f"{symbols}-17", symbol=symbols)
    head, *rows = render(replace(SNAPSHOT, decisions=(wide, decision(4))), "", 200)[-3:]
    plain = [line.replace("\x1b[2m", "").replace("\x1b[0m", "") for line in (head, *rows)]
    assert {line.index(text) for line, text in zip(plain, ("action", "+0.5", "hold"), strict=True)} == {plain[0].index("action")}
    assert len({len(line) for line in plain}) == 1


def test_no_line_is_longer_than_the_terminal_is_wide() -> None:
    lines = render(SNAPSHOT, "a headline " * 20, 60)
    assert all(len(line.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")) <= 60 for line in lines)


def test_what_is_not_known_yet_is_a_dash() -> None:
    assert "nan" not in "\n".join(render(NOTHING_YET, "", 140))
    assert "nan" not in plain_line(NOTHING_YET)
    assert "iteration   none yet" in render(NOTHING_YET, "", 140)


def test_without_a_terminal_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PLAIN_S", 1e6)  # no second line, however late the stop comes
    stream = io.StringIO()
    view = TerminalView(Taker(), stream, lambda: "")
    view.start()
    assert view.stop()
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().splitlines() == [plain_line(SNAPSHOT)]


def test_on_a_terminal_the_first_screen_and_the_cursor_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    view = TerminalView(Taker(), stream, lambda: "headline")
    view.start()
    assert view.stop()
    text = stream.getvalue()
    assert text.startswith("\x1b[?1049h")
    assert text.endswith("\x1b[?25h\x1b[?1049l")
    assert "headline" in text


def test_a_sparkline_goes_from_the_lowest_to_the_highest_block() -> None:
    assert sparkline((0.0, math.nan, 1.0)) == "▁ █"
    assert sparkline((2.0, 2.0)) == "▁▁"
    assert sparkline(()) == ""


def test_durations_are_written_as_on_a_clock() -> None:
    assert [clock(5), clock(65), clock(3_725)] == ["0:05", "1:05", "1:02:05"]
