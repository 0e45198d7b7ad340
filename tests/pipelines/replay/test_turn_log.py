"""The event log never makes a node wait, is bounded in memory and on disk, and says why it ended."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, cast

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
    log, added = TurnLog(tmp_path, DISCRETE, 1 << 20), 0

    def seconds_to_disk(turns: int) -> float:
        nonlocal added
        for number in range(added, added + turns):
            log.add(turn(number))
        added += turns
        began_s = time.monotonic()
        wait_until(lambda: kept(tmp_path) == list(range(added)), "the turns are on disk")
        return time.monotonic() - began_s

    assert any(seconds_to_disk(50) < 1.0 for _ in range(10)), "a busy machine may take longer now and then"
    assert FLUSH_S <= 1.0
    assert EventLogReader(tmp_path).state.end is None
    log.add(turn(added))
    log.close()
    assert kept(tmp_path) == list(range(added + 1))
    assert (EventLogReader(tmp_path).state.end, log.recorded, log.unrecorded) == ("end", added + 1, 0)
    assert log.n_bytes == (tmp_path / "events.arrows").stat().st_size
    assert "turn-log" not in [thread.name for thread in threading.enumerate()]
    log.close()


@pytest.mark.long
def test_a_full_log_ends_with_what_had_room_counts_the_rest_and_tells_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[bool] = []
    log = TurnLog(tmp_path, DISCRETE, 100_000, flush_s=0.01, on_end=lambda: told.append(True))
    added = 0

    def is_settled() -> bool:
        return bool(told) or log.recorded == added

    while not told:
        for number in range(added, added + 5):  # the writer makes one batch of what came since the last, and that has room or has not
            log.add(turn(number, 64))
        added += 5
        wait_until(is_settled, "the turns are on disk, or the log is full")
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


class FullDisk:
    """A file on a disk that takes so many bytes, and then none until there is room again."""

    def __init__(self, file: BinaryIO, room: int) -> None:
        self._file, self.room, self.refusals = file, room, 0

    def write(self, data: memoryview) -> int:
        if not self.room:
            self.refusals += 1
            raise OSError(28, "No space left on device")
        taken = self._file.write(data[: self.room])
        self.room -= taken
        return taken

    def close(self) -> None:
        self._file.close()


def begun_on_a_full_disk(folder: Path, room: int, **options: Any) -> tuple[TurnLog, FullDisk]:
    """Begin a log whose first turn is on disk, and which can't write the second."""
    log = TurnLog(folder, DISCRETE, 1 << 20, flush_s=0.01, **options)
    log.add(turn(0))
    wait_until(lambda: kept(folder) == [0], "the first turn is on disk")
    disk = FullDisk(log._file._events, room)
    log._file._events = cast(BinaryIO, disk)
    log.add(turn(1))
    return log, disk


@pytest.mark.parametrize("room", [0, 100])
def test_a_disk_that_is_full_for_a_while_costs_no_turn(tmp_path: Path, caplog: pytest.LogCaptureFixture, room: int) -> None:
    log, disk = begun_on_a_full_disk(tmp_path, room)
    wait_until(lambda: disk.refusals >= 2, "two attempts")
    log.add(turn(2))
    assert kept(tmp_path) == [0]
    disk.room = 1 << 20
    log.close()
    assert (kept(tmp_path), EventLogReader(tmp_path).state.end) == ([0, 1, 2], "end")
    assert (log.recorded, log.unrecorded) == (3, 0)
    began, over = [record.getMessage() for record in caplog.records if record.name.startswith("policyserver.pipelines.replay")]
    assert "the event log: can't be written, trying again; turns wait meanwhile: [Errno 28] No space left on device" in began
    assert "the event log: is written again, after" in over


@pytest.mark.parametrize("rows", [330, 10**6])
def test_a_disk_that_stays_full_costs_the_log_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: int) -> None:
    log, disk = begun_on_a_full_disk(tmp_path, 100, most_rows_waiting=rows)
    wait_until(lambda: disk.refusals >= 2, "two attempts")
    for number in range(2, 20):
        log.add(turn(number))
    log.close()
    assert f"the event log ends here ({'behind' if rows == 330 else 'failed'}), after 1 turns" in caplog.text
    assert (kept(tmp_path), EventLogReader(tmp_path).state.end) == ([0], None)
    assert (log.recorded, log.unrecorded) == (1, 19)
