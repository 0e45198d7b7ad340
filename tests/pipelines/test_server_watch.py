"""What serving processes report is summed over all of them and their predecessors, recorded for each, and an outage is two log lines."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from policyserver.client import ServerStats
from policyserver.common.errors import ServerUnavailableError
from policyserver.monitoring.points import Points
from policyserver.monitoring.sink import MultiSink
from policyserver.pipelines import server_watch
from policyserver.pipelines.server_watch import ServerWatch
from tests.pipelines.demo.test_terminal import STATS, TRAINING

WAIT_S = 60.0
TAGS = {"run": "r", "policy": "p", "process": "ou", "worker": "w"}


class Server:
    """Answers with what it is told, None for no answer."""

    def __init__(self) -> None:
        self.answer: ServerStats | None = STATS
        self.second: ServerStats | None = None

    def stats_by_endpoint(self) -> dict[str, ServerStats]:
        if self.answer is None:
            raise ServerUnavailableError("nobody there")
        return {"first": self.answer} | ({} if self.second is None else {"second": self.second})


class Book(MultiSink):
    def __init__(self) -> None:
        super().__init__()
        self.points: list[Points] = []

    def write(self, points: Points) -> None:
        self.points.append(points)


@pytest.fixture(autouse=True)
def _asked_only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a watch ask when a test says so alone, and not also because its time has come."""
    monkeypatch.setattr(server_watch, "ASK_S", 1e6)


def ask(watch: ServerWatch) -> None:
    watch.flush().result(WAIT_S)


def test_the_ledger_of_a_server_that_died_is_kept_beside_that_of_its_successor() -> None:
    server, book = Server(), Book()
    watch = ServerWatch(server, book, TAGS)
    watch.start()
    ask(watch)
    server.answer = None
    ask(watch)
    assert not watch.answered
    assert watch.latest == STATS
    server.answer = replace(STATS, boot_id="second", reward_sum=5.0, steps_dropped=3)
    ask(watch)
    assert watch.answered
    assert (watch.reward_sum, watch.steps_dropped) == (-12.0 + 5.0, 3)
    assert watch.stop()
    assert watch.statistics().failures == 0


def test_the_ledger_holds_every_runner_and_those_before_them_once() -> None:
    server = Server()
    server.second = replace(STATS, boot_id="b", reward_sum=3.0, steps_dropped=1, episodes_open=2)
    watch = ServerWatch(server, Book(), TAGS)
    watch.start()
    ask(watch)
    assert watch.latest is not None
    assert watch.latest.episodes_open == STATS.episodes_open + 2
    server.second = replace(STATS, boot_id="b's successor", reward_sum=4.0, steps_dropped=2)
    ask(watch)
    assert watch.stop()
    assert (watch.reward_sum, watch.steps_dropped) == (-12.0 + 3.0 + 4.0, STATS.steps_dropped + 1 + 2)


def test_staleness_is_the_mean_over_the_steps_of_the_iterations_each_counted_once() -> None:
    server = Server()
    watch = ServerWatch(server, Book(), TAGS)
    assert watch.staleness_mean is None
    watch.start()
    ask(watch)
    ask(watch)
    server.answer = replace(STATS, training=replace(TRAINING, iteration=8, steps=12_000, staleness_mean=2.0))
    ask(watch)
    assert watch.stop()
    assert watch.staleness_mean == pytest.approx((4_000 * 1.0 + 12_000 * 2.0) / 16_000)


def test_the_first_answer_and_every_fourth_are_recorded() -> None:
    server, book = Server(), Book()
    watch = ServerWatch(server, book, TAGS)
    watch.start()
    recorded = []
    for _ in range(5):
        ask(watch)
        recorded.append(len(book.points))
    assert watch.stop()
    assert recorded == [1, 1, 1, 1, 2]
    assert book.points[0].measurement == "server"
    assert book.points[0].field_values("steps_waiting") == [123]
    assert set(book.points[0].tags) == {"run", "policy", "worker"}


def test_each_serving_process_has_points_of_its_own() -> None:
    server, book = Server(), Book()
    server.second = replace(STATS, boot_id="b", actions=7)
    watch = ServerWatch(server, book, TAGS)
    watch.start()
    ask(watch)
    assert watch.stop()
    assert [points.field_values("boot_id") for points in book.points] == [["boot"], ["b"]]
    assert book.points[1].field_values("actions") == [7]


def test_a_server_that_is_away_is_one_line_and_its_return_another(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "policyserver.pipelines")
    server = Server()
    watch = ServerWatch(server, Book(), TAGS)
    watch.start()
    ask(watch)
    server.answer = None
    for _ in range(5):
        ask(watch)
    server.answer = STATS
    ask(watch)
    assert watch.stop()
    lines = [record.getMessage() for record in caplog.records if "policy server" in record.getMessage()]
    assert len(lines) == 2, "\n".join(lines)
    assert "nobody there" in lines[0]
    assert "it answers again, after" in lines[1]
