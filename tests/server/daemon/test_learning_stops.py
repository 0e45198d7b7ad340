"""A stop whose time is over gives up an iteration and never a checkpoint; of a pause and a resume at once one is obeyed by all."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from policyserver.server.daemon.checkpoints import Checkpoint
from tests.server.daemon.learning_run import Run

LIMIT_S = 0.005


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    before = signal.getsignal(signal.SIGALRM)
    run = Run(tmp_path)
    run.alarm.handle()
    yield run
    run.alarm.end()
    signal.signal(signal.SIGALRM, before)
    run.checkpoints.close()


def stop(run: Run, limit_s: float = LIMIT_S) -> None:
    """Do what a SIGTERM does."""
    run.alarm.begin(limit_s)
    run.stopping.set()


def saved(run: Run) -> list[tuple[int, int]]:
    """Return number and iteration of each checkpoint that was written whole, and that nothing of another one is left."""
    names = {path.name for path in run.checkpoints._folder.iterdir() if not path.name.startswith(".")}
    found = run.checkpoints.all()
    assert {name for name in names if name.startswith("tmp-")} == set()
    return [(each.number, each.progress.iteration) for each in found[1:]]  # the first one is there before


def in_the_second_iteration(run: Run, do: Callable[[], None]) -> None:
    run.algorithm.after_train = lambda trained: do() if trained == 2 else None


def slowly(_: Any) -> None:
    """Write a checkpoint in more time than a stop has."""
    time.sleep(4 * LIMIT_S)


def test_the_last_checkpoint_may_take_longer_than_the_stop_may(run: Run) -> None:
    run.algorithm.save_to_path = slowly
    in_the_second_iteration(run, lambda: stop(run))
    run.train()
    assert saved(run) == [(2, 1)]


def test_so_may_one_that_is_being_written_when_the_stop_begins(run: Run) -> None:
    def save(_: Any) -> None:
        stop(run, 600.0)  # else its end may come before the answer is given
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0, "the limit stands still"

    run.algorithm.save_to_path = save
    answers: list[Any] = []
    in_the_second_iteration(run, lambda: answers.append(run.safe_point.ask(run.learning.save)))
    run.train()
    assert isinstance(answers[0].result(0.0), Checkpoint), "whoever asked for it is answered"
    assert saved(run) == [(2, 1)]


def test_so_may_one_that_is_written_after_an_iteration(run: Run) -> None:
    def save(path: Any) -> None:
        stop(run)
        slowly(path)

    run.algorithm.save_to_path = save
    object.__setattr__(run.learning._config.checkpoints, "every_iterations", 1)
    run.train()
    assert saved(run) == [(2, 1)]


def test_an_iteration_that_takes_too_long_is_given_up(run: Run) -> None:
    def train() -> None:
        stop(run)
        time.sleep(5.0)

    in_the_second_iteration(run, train)
    run.train()
    assert saved(run) == [(2, 1)]


def test_so_is_what_comes_after_one_that_failed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    def count() -> None:
        stop(run)
        time.sleep(5.0)

    monkeypatch.setattr(run.learning._metrics, "iteration_failed", count)
    in_the_second_iteration(run, fail)
    run.train()
    assert saved(run) == [(2, 1)]


def test_a_roll_back_that_is_being_written_at_the_end_is_waited_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    copies, copy = threading.Event(), run.checkpoints.copy

    def copy_slowly(*arguments: Any) -> Checkpoint:
        copies.set()
        time.sleep(0.1)
        return copy(*arguments)

    monkeypatch.setattr("policyserver.server.daemon.learning._ROLL_BACK_S", 0.02)
    monkeypatch.setattr(run.checkpoints, "copy", copy_slowly)
    going_back = threading.Thread(target=lambda: run.learning.roll_back(1, 0))

    def begin() -> None:
        going_back.start()
        assert copies.wait(20.0)
        stop(run)

    in_the_second_iteration(run, begin)
    run.train()
    newest = run.checkpoints.newest_whole()
    going_back.join()
    assert newest is not None
    assert (newest.number, newest.restored_from) == (2, 1), "else the next start would go on from what was rolled back"


def test_a_roll_back_that_fails_at_once_holds_no_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Checkpoint) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("policyserver.server.daemon.learning.state_of", fail)
    with pytest.raises(OSError, match="Input/output error"):
        run.learning.roll_back(1, 0)
    for _ in range(3):
        run.learning.save()
    assert [each.number for each in run.checkpoints.all()] == [2, 3, 4]


def test_a_pause_and_a_resume_at_once_leave_actors_and_learner_in_one_state(run: Run) -> None:
    actors: list[bool] = []
    told, goes_on = threading.Event(), threading.Event()

    def order(_: str, paused: bool, *, stays: bool) -> None:
        actors.append(paused)
        if paused:
            told.set()
            assert goes_on.wait(20.0)

    run.link.order = order
    pausing = threading.Thread(target=lambda: run.learning.pause(True))
    resuming = threading.Thread(target=lambda: run.learning.pause(False))
    pausing.start()
    assert told.wait(20.0)
    resuming.start()
    resuming.join(0.05)
    goes_on.set()
    for thread in (pausing, resuming):
        thread.join(20.0)
    assert (actors[-1], run.safe_point.is_paused) == (False, False)
