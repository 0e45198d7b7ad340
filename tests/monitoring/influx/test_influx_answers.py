"""What the InfluxDB sink makes of answers, and what it says of them: 204 alone is a delivery, an outage is one line, no secret is shown."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from influxdb_client import InfluxDBClient

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.points import Points
from tests.monitoring.answering_server import STORED, AnsweringServer, answering
from tests.services import wait_until

TOKEN = "s3cret-token"
PAGE = "<!DOCTYPE html>\n<html>\n<head><title>Sign in</title></head>\n<body>\n" + "<p>Please sign in</p>\n" * 50 + "</body></html>\n"


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with answering() as server:
        yield server


def config(server: AnsweringServer, tmp_path: Path, **changes: Any) -> InfluxConfig:
    impatient: dict[str, Any] = {"gather_s": 0.02, "retry_min_s": 0.02, "retry_max_s": 0.05}
    return InfluxConfig(server.url, "b", tmp_path / "spool", **(impatient | changes))


def points(count: int = 10) -> Points:
    return Points("step", {"run": "r", "worker": "w"}, {"reward": np.ones(count)})


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.long
@pytest.mark.parametrize(
    "answer", [(200, "text/html", PAGE), (200, "application/json", "{}"), (201, "text/plain", ""), (302, "text/html", PAGE)]
)
def test_only_204_counts_as_stored(server: AnsweringServer, tmp_path: Path, answer: tuple[int, str, str]) -> None:
    server.answer = lambda: answer
    sink = InfluxSink(config(server, tmp_path))
    sink.write(points())
    wait_until(lambda: len(server.paths) >= 3 or sink.statistics().stored, "three attempts")
    counted = sink.statistics()
    assert (counted.stored, counted.backlog, counted.dead_lettered) == (0, 10, 0), "nobody has the points"
    assert str(answer[0]) in counted.last_error
    server.answer = lambda: STORED
    assert sink.flush(60.0)
    assert (sink.statistics().stored, len(server.lines)) == (10, 10)
    sink.close(60.0)


@pytest.mark.long
def test_an_outage_is_one_line_and_its_end_another_that_says_what_had_waited(
    server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = itertools.count()
    server.answer = lambda: (502 + next(numbers) % 3, "text/html", PAGE.replace("Sign in", f"Request {next(numbers)} failed"))
    sink = InfluxSink(config(server, tmp_path))
    sink.write(points(30))
    wait_until(lambda: len(server.paths) >= 6, "six attempts")
    assert len(said(caplog)) == 1, "\n".join(said(caplog))
    outage = said(caplog)[0]
    assert "which wait on disk: 502 Bad Gateway" in outage
    assert "\n" not in outage
    assert "<" not in outage
    assert len(outage) < 400
    server.answer = lambda: STORED
    assert sink.flush(60.0)
    sink.write(points(1))
    assert sink.flush(60.0)
    sink.close(60.0)
    _, recovery = said(caplog)
    assert "takes points again, 30 had waited, after" in recovery


@pytest.mark.long
def test_what_wants_another_remedy_during_an_outage_is_said_too(
    server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = itertools.cycle([(503, "text/plain", "starting"), (401, "application/json", '{"message": "unauthorized access"}')])
    server.answer = lambda: next(answers)
    sink = InfluxSink(config(server, tmp_path))
    sink.write(points())
    wait_until(lambda: len(server.paths) >= 8, "eight attempts")
    sink.close(0.1)
    troubles = [text for text in said(caplog) if "trying again" in text]
    assert len(troubles) == 2
    assert "401 Unauthorized" in troubles[1]


@pytest.mark.long
def test_points_that_find_the_spool_full_are_one_line_and_one_when_there_is_room_again(
    server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda: (503, "text/plain", "starting")
    sink = InfluxSink(config(server, tmp_path, max_spool_bytes=2000))
    for _ in range(20):
        sink.write(points())
    wait_until(lambda: len(server.paths) >= 5, "five attempts")
    for _ in range(20):
        sink.write(points())
    dropped = sink.statistics().dropped
    server.answer = lambda: STORED
    assert sink.flush(60.0)
    sink.write(points())
    sink.close(60.0)
    lines = said(caplog)
    assert len(lines) == 4, "\n".join(lines)
    assert sum("points dropped: max_spool_bytes is reached" in text for text in lines) == 1
    assert f"points are taken again, {dropped:,} were dropped since the start" in lines[3]


@pytest.mark.long
def test_refused_points_of_one_request_are_one_line(server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbers = itertools.count()
    server.answer = lambda: (400, "application/json", f"cannot parse line {next(numbers)}")
    sink = InfluxSink(config(server, tmp_path))
    sink.write(points(20))
    assert sink.flush(60.0)
    sink.close(60.0)
    assert len(said(caplog)) == 1, "\n".join(said(caplog))
    assert "20 points were refused, the first: 400 Bad Request cannot parse line" in said(caplog)[0]


@pytest.mark.long
def test_a_token_with_a_line_break_is_not_shown(server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with InfluxDBClient(url=server.url, token=f"{TOKEN}\n", org="o") as client:
        own = InfluxConfig.for_client(client, "b", tmp_path / "spool")
        sink = InfluxSink(own, client)
        sink.write(points())
        wait_until(lambda: sink.statistics().last_error, "the client's refusal")
        sink.close(0.1)
    assert "ValueError" in sink.statistics().last_error
    assert TOKEN not in caplog.text + sink.statistics().last_error
    with pytest.raises(ValueError, match="token: expected printable characters") as refused:
        InfluxConfig(server.url, "b", tmp_path, token=f"{TOKEN}\n")
    assert TOKEN not in str(refused.value)


def test_a_variable_may_end_with_a_line_break(server: AnsweringServer, tmp_path: Path) -> None:
    variables = {"URL": f"{server.url}\n", "BUCKET": "b\n", "TOKEN": f"{TOKEN}\n"}
    read = InfluxConfig.from_environment(tmp_path / "spool", {f"INFLUXDB_V2_{name}": value for name, value in variables.items()})
    assert read is not None
    sink = InfluxSink(read)
    sink.write(points())
    assert sink.flush(60.0)
    sink.close(60.0)
    assert server.headers[0]["Authorization"] == f"Token {TOKEN}"


@pytest.mark.long
@pytest.mark.parametrize("status", [400, 503])
def test_a_server_that_repeats_the_token_does_not_spread_it(
    server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    server.answer = lambda: (status, "text/plain", f"Authorization: Token user:{TOKEN}, as Basic dXNlcjpzM2NyZXQ=, is not welcome")
    sink = InfluxSink(config(server, tmp_path, token=f"user:{TOKEN}"))
    sink.write(points())
    wait_until(lambda: "is not welcome" in caplog.text, "the answer")
    sink.close(0.1)
    files = "".join(path.read_text() for path in (tmp_path / "spool").rglob("*") if path.is_file())
    assert TOKEN not in caplog.text + sink.statistics().last_error + files


@pytest.mark.long
def test_a_dead_letter_file_that_cannot_be_written_stops_no_delivery(
    server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [(400, "text/plain", "no such field"), STORED]
    server.answer = lambda: answers.pop(0) if len(answers) > 1 else answers[0]
    known = config(server, tmp_path)
    known.spool_folder.mkdir()
    known.dead_letter_file.symlink_to("/dev/full")
    sink = InfluxSink(known)
    sink.write(points(1))
    wait_until(lambda: sink.statistics().dead_lettered or "for good" in caplog.text, "the refusal")
    sink.write(points(10))
    assert sink.flush(60.0), "the sink goes on"
    assert (sink.statistics().stored, sink.statistics().dead_lettered) == (10, 1)
    sink.close(60.0)
    assert "dead.lp can't be written (No space left on device)" in caplog.text
