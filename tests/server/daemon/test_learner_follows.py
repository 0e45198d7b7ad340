"""A roll-back that the learner can't follow is tried again and told, and ends the daemon where it never can; no counter falls by one."""

from __future__ import annotations

import contextlib
import errno
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.roll_back import NotWrittenError
from policyserver.server.daemon.served_state import SERVED_FILE
from policyserver.server.processes.training_report import Progress
from tests.server.daemon.learning_run import STEPS, WEIGHTS, Run
from tests.services import wait_until


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.checkpoints.close()


def test_counters_go_on_and_the_version_rises_at_a_roll_back(run: Run) -> None:
    run.train()
    assert [each.iteration for each in run.progress] == [0, 1, 2, 2, 3]
    assert [each.steps_total for each in run.progress] == [0, 10, 20, 20, 30]
    assert [each.weights_seq_no for each in run.progress] == [0, 1, 2, 3, 4]
    assert (run.learning.lineage, run.learning.restored_from, run.learning.rolling_back) == (1, 1, None)
    assert run.failures == {(0, "")}


@pytest.mark.parametrize("times", [1, 2])
def test_a_learner_that_can_not_follow_tries_again(run: Run, times: int, caplog: pytest.LogCaptureFixture) -> None:
    run.algorithm.unreadable = times
    run.train()
    assert run.learning.rolling_back is None
    assert [each.weights_seq_no for each in run.progress] == [0, 1, 2, 3, 4]
    assert "could not follow a roll-back to" in caplog.text
    assert "Input/output error" in caplog.text


def test_a_learner_that_never_follows_ends_the_daemon_with_the_reason_and_no_checkpoint_of_its_own(run: Run) -> None:
    run.algorithm.unreadable = 1000
    with pytest.raises(DaemonError, match=r"3 training iterations failed in a row, the last with .*Input/output error"):
        run.train()
    assert run.algorithm.trained == 3, "it learns nothing from what it had"
    assert (run.learning.failures, "Input/output error" in run.learning.last_failure) == (3, True)
    newest = run.checkpoints.newest_whole()
    assert newest is not None
    assert (newest.number, newest.restored_from) == (2, 1), "from which the next start goes on"


@pytest.mark.parametrize("is_finite", [True, False])
def test_on_a_full_disk_a_start_goes_on_from_what_was_rolled_back_to_all_the_same(
    run: Run, is_finite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = WEIGHTS if is_finite else {"default_policy": {"weight": np.array([1.0, np.nan], np.float32)}}
    bad = run.checkpoints.save(
        lambda path: (path / SERVED_FILE).write_bytes(pickle.dumps({"rl_module": weights})), Progress(2, 2 * STEPS, 2, 2)
    )
    run.algorithm.unreadable = 1000

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def step(trained: int) -> None:
        with monkeypatch.context() as full:
            full.setattr("shutil.copyfile", refuse)
            with pytest.raises(NotWrittenError, match="No space left"):
                run.learning.roll_back(1, 7)

    run.algorithm.after_train = step
    with pytest.raises(DaemonError, match="Input/output error"):
        run.train()
    newest = run.checkpoints.newest_whole()
    assert newest is not None
    assert (newest.number, newest.lineage, newest.restored_from) == (1, 1, 1)
    assert newest.progress == Progress(2, 2 * STEPS, 2, 8), (
        "the run has done what the newest one says, and no version stands for two policies"
    )
    assert [each.number for each in run.checkpoints.all()] == [1, bad.number], "nothing is lost"
    state = pickle.dumps({"rl_module": WEIGHTS})
    after = run.checkpoints.save(lambda path: (path / SERVED_FILE).write_bytes(state), newest.progress, lineage=newest.lineage)
    newest = run.checkpoints.newest_whole()
    assert newest is not None
    assert newest.number == after.number, "what is saved after that counts"


def test_one_that_is_paused_says_why_it_does_not_follow(run: Run) -> None:
    run.algorithm.unreadable = 1
    told: list[str] = []

    def resume() -> None:
        with contextlib.suppress(pytest.fail.Exception):
            wait_until(lambda: run.learning.last_failure, "the failure")
        told.append(run.learning.last_failure)
        run.learning.pause(False)

    resuming = threading.Thread(target=resume)

    def step(trained: int) -> None:
        if trained == 3:
            run.learning.roll_back(1, 0)
            run.learning.pause(True)
            resuming.start()
        elif trained == 4:
            run.stopping.set()

    run.algorithm.after_train = step
    run.train()
    resuming.join()
    assert "Input/output error" in told[0]
    assert run.learning.rolling_back is None
