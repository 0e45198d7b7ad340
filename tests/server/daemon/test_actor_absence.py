"""The daemon gives up when there was no serving actor for five minutes: not when the last one goes after a long iteration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from policyserver.server.daemon.daemon_errors import DaemonError
from tests.server.daemon.learning_run import Run

Iteration = tuple[bool, float, bool]
"""Whether the actor is there for its steps, the seconds that it lasts after them, and whether the actor is there at its end."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.checkpoints.close()


def iterate(run: Run, monkeypatch: pytest.MonkeyPatch, *iterations: Iteration) -> None:
    """Train for these iterations, by a clock of their own."""
    now_s, is_there, left = [0.0], [True], list(iterations)
    group = run.algorithm.env_runner_group
    group.num_healthy_remote_workers = lambda: int(is_there[0])
    run.algorithm.config.num_env_runners = 1
    monkeypatch.setattr("policyserver.server.daemon.safe_point.time", SimpleNamespace(monotonic=lambda: now_s[0]))

    def one() -> None:
        is_there[0], seconds, is_there_then = left.pop(0)
        group.foreach_env_runner("sample")
        now_s[0] += seconds
        is_there[0] = is_there_then
        if not left:
            run.stopping.set()

    monkeypatch.setattr(run.learning, "_iterate", one)
    run.train()


def test_the_length_of_an_iteration_is_no_absence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    iterate(run, monkeypatch, (True, 4000.0, True), (True, 4000.0, False), (False, 5.0, False), (True, 5.0, True))


def test_one_that_came_back_within_an_iteration_was_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    iterate(run, monkeypatch, (True, 5.0, False), (True, 4000.0, False), (False, 5.0, False), (True, 5.0, True))


def test_after_an_absence_of_five_minutes_what_was_learned_is_saved_and_the_daemon_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DaemonError, match="no serving actor came back within 300 s"):
        iterate(run, monkeypatch, (True, 5.0, True), (False, 5.0, False), (False, 299.0, False), (False, 2.0, False), (True, 5.0, True))
    assert [each.number for each in run.checkpoints.all()] == [1, 2]
