"""The event log never makes a node wait, is bounded in memory and on disk, and says why it ended."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from policyserver.pipelines.replay.columns import ActionType
from policyserver.pipelines.replay.event_file import EventFile, EventLogReader
from policyserver.pipelines.replay.turn import Turn
from policyserver.pipelines.replay.turn_log import FLUSH_S, TurnLog
from tests.services import wait_until

DISCRETE = ActionType("int64", ())


def turn(number: int, rows: int = 32) -> Turn:
    each = np.arange(rows)
    return Turn(number, asked=(each, np.random.default_rng(number).standard_normal((rows, 1, 3)), np.zeros((rows, 10), np.float32)))


def kept(folder: Path) -> list[int]:
    return [turn.block for batch in EventLogReader(folder).batches() for turn in batch]


@pytest.mark.long
def test_what_was_taken_is_in_the_file_in_its_order_and_is_there_within_a_second_while_the_run_goes_on(tmp_path: Path) -> None:
    log = TurnLog(tmp_path, DISCRETE, 1 << 20)
    for number in range(50):
        log.add(turn(number))
    began = time.monotonic()
    wait_until(lambda: kept(tmp_path) == list(range(50)), "the turns are on disk")
    assert time.monotonic() - began < FLUSH_S + 5.0, "and what a busy machine takes"
    assert FLUSH_S <= 1.0
    assert EventLogReader(tmp_path).state.end is None
    log.add(turn(50))
    log.close()
    assert kept(tmp_path) == list(range(51))
    assert (EventLogReader(tmp_path).state.end, log.recorded, log.unrecorded) == ("end", 51, 0)
    assert log.n_bytes == (tmp_path / "events.arrows").stat().st_size
    assert "turn-log" not in [thread.name for thread in threading.enumerate()]
    log.close()


@pytest.mark.long
def test_a_full_log_ends_with_what_had_room_counts_the_rest_and_tells_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[bool] = []
    log = TurnLog(tmp_path, DISCRETE, 100_000, flush_s=0.01, on_end=lambda: told.append(True))
    added = 0
    while not told:
        log.add(turn(added, 64))
        added += 1
        time.sleep(1e-3)
    log.add(turn(added))
    log.close()
    assert EventLogReader(tmp_path).state.end == "full"
    assert (tmp_path / "events.arrows").stat().st_size <= 100_000
    assert kept(tmp_path) == list(range(log.recorded))
    assert log.recorded > 20
    assert log.recorded + log.unrecorded == added + 1
    assert told == [True]
    assert "the event log ends here (full)" in caplog.text


def test_a_writer_that_is_too_far_behind_ends_the_log_and_no_node_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, write = threading.Event(), EventFile.write

    def stuck(self: EventFile, turns: list[Turn]) -> bool:
        gate.wait(60.0)
        return write(self, turns)

    monkeypatch.setattr(EventFile, "write", stuck)
    log = TurnLog(tmp_path, DISCRETE, 1 << 20, flush_s=0.01, most_rows_waiting=330)
    began = time.monotonic()
    for number in range(100):
        log.add(turn(number))
    assert time.monotonic() - began < 30.0, "nobody waits for what is stuck"
    gate.set()
    log.close()
    assert EventLogReader(tmp_path).state.end == "behind"
    assert kept(tmp_path) == list(range(log.recorded))
    assert 10 <= log.recorded <= 30
    assert log.recorded + log.unrecorded == 100


@pytest.mark.long
def test_a_file_that_cannot_be_written_costs_the_log_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full_disk(self: EventFile, turns: list[Turn]) -> bool:
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.WARNING)
    log = TurnLog(tmp_path, DISCRETE, 1 << 20, flush_s=0.01)
    log.add(turn(0))
    wait_until(lambda: kept(tmp_path) == [0], "the first turn is on disk")
    monkeypatch.setattr(EventFile, "write", full_disk)
    log.add(turn(1))
    wait_until(lambda: "the event log ends here (failed)" in caplog.text, "the trouble is told")
    log.add(turn(2))
    log.close()
    assert "No space left on device" in caplog.text
    assert kept(tmp_path) == [0]
    assert (EventLogReader(tmp_path).state.end, log.recorded) == (None, 1)
    assert log.unrecorded == 2
