"""Troubles of the machine that pass end no delivery, one unusable spool holds up no other, and closing keeps its time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.influx.spool import Spool
from tests.monitoring.answering_server import STORED, AnsweringServer, answering
from tests.monitoring.influx.test_influx_answers import config, points, said
from tests.services import wait_until

LINES = [b"step,run=r,worker=w reward=%d %d\n" % (number, number) for number in range(20)]
MANY = 2_500
"""Requests that take two minutes where each takes 0.05 s."""


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with answering() as server:
        yield server


def left_behind(root: Path, segment_bytes: int = 1 << 20) -> Path:
    """Make the spool of a process that died with points undelivered."""
    spool = Spool.create(root, segment_bytes)
    for line in LINES:
        spool.append(line)
    spool.abandon()
    return spool.folder


@pytest.mark.long
def test_a_spool_that_cannot_be_used_holds_up_neither_the_others_nor_what_is_written(
    server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    known = config(server, tmp_path, adopt_interval_s=0.05)
    unusable = known.spool_folder / "0-of-another-user"
    (unusable / "lock").mkdir(parents=True)
    (unusable / "00000001.lp").touch()
    left_behind(known.spool_folder)
    sink = InfluxSink(known)
    wait_until(lambda: sink.statistics().stored == len(LINES), "the other spool is delivered")
    wait_until(lambda: "0-of-another-user" in sink.statistics().last_error, "a further look")
    sink.write(points(10))
    assert sink.flush(60.0)
    (unusable / "lock").rmdir()
    wait_until(lambda: not unusable.exists(), "it is adopted once it can be")
    sink.close(60.0)
    assert (sink.statistics().stored, sink.statistics().backlog, len(server.lines)) == (30, 0, 30)
    began, over = said(caplog)
    assert "the spool of another process can't be delivered, its points stay there" in began
    assert "trying again every 0.05 s" in began
    assert "all spools of other processes can be delivered" in over


@pytest.mark.long
def test_a_segment_that_cannot_be_read_for_a_while_costs_no_point(
    server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = InfluxSink(config(server, tmp_path))
    (segment,) = (tmp_path / "spool").rglob("*.lp")
    segment.rename(segment.with_name("away"))
    sink.write(points(10))
    wait_until(lambda: "can't be read" in sink.statistics().last_error, "an attempt to read")
    sink.write(points(10))
    segment.with_name("away").rename(segment)
    assert sink.flush(60.0)
    sink.close(60.0)
    assert (sink.statistics().stored, sink.statistics().dropped, len(server.lines)) == (20, 0, 20)
    began, over = said(caplog)
    assert "the spool can't be read, trying again: [Errno 2]" in began
    assert "the spool is read again" in over


@pytest.mark.long
def test_an_adopted_spool_that_fails_in_the_middle_is_counted_once(server: AnsweringServer, tmp_path: Path) -> None:
    known = config(server, tmp_path, adopt_interval_s=0.05, request_bytes=100)
    second = left_behind(known.spool_folder, segment_bytes=200) / "00000002.lp"

    def lose_the_second() -> tuple[int, str, str]:
        if not server.paths:
            second.rename(second.with_name("away"))
        return STORED

    server.answer = lose_the_second
    sink = InfluxSink(known)
    wait_until(lambda: "00000002.lp" in sink.statistics().last_error, "the trouble")
    counted = sink.statistics()
    assert (counted.accepted, counted.backlog) == (counted.stored, 0)
    second.with_name("away").rename(second)
    wait_until(lambda: not second.parent.exists(), "it is adopted again")
    sink.close(60.0)
    assert sink.statistics().accepted == sink.statistics().stored == len(LINES)
    assert server.lines == [line.decode().strip() for line in LINES], "each once"


@pytest.mark.long
def test_closing_keeps_its_time_with_a_database_that_answers_slowly(
    server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    delivers = threading.Event()
    known = config(server, tmp_path, request_bytes=100)

    def slowly() -> tuple[int, str, str]:
        delivers.set()
        time.sleep(0.05)
        return STORED

    server.answer = slowly
    sink = InfluxSink(known)
    for _ in range(MANY):
        sink.write(points(2))
    assert delivers.wait(60.0)
    sink.close(0.2)  # while all of them take two minutes
    left = sink.statistics().backlog
    assert 0 < left < 2 * MANY
    assert f"closed with {left} points left in the spool" in said(caplog)[-1]
    server.answer = lambda: STORED
    successor = InfluxSink(replace(known, request_bytes=100_000))
    wait_until(lambda: successor.statistics().stored == left, "the rest is delivered")
    successor.close(60.0)
    assert len(server.lines) == 2 * MANY, "each once"


@pytest.mark.long
def test_closing_leaves_a_thread_behind_that_does_not_end(
    server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate, asked = threading.Event(), threading.Event()

    def stuck() -> tuple[int, str, str]:
        asked.set()
        gate.wait(60.0)
        return STORED

    server.answer = stuck
    sink = InfluxSink(config(server, tmp_path, request_timeout_s=60.0))
    assert sink._under_way_s > 60.0
    sink._under_way_s = 0.1
    sink.write(points(10))
    assert asked.wait(60.0)
    sink.close(0.1)
    assert sink._thread.is_alive()
    assert "what was under way did not end in time and is left behind" in said(caplog)[-1]
    gate.set()
    sink._thread.join(60.0)
    assert not sink._thread.is_alive()
