"""A roll-back that the learner can't follow is tried again and told, and ends the daemon where it never can; no counter falls by one."""

from __future__ import annotations

import errno
import math
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policyserver.common.settings import load
from policyserver.monitoring.sink import MultiSink
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.checkpoints import CheckpointFolder
from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.daemon_metrics import DaemonMetrics
from policyserver.server.daemon.learning import Learning
from policyserver.server.daemon.roll_back import NotWrittenError
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.served_state import SERVED_FILE
from policyserver.server.processes.training_report import Progress

WEIGHTS = {"default_policy": {"weight": np.ones(2, np.float32)}}
STEPS = 10


class Group:
    """One learner or one env runner, as RLlib calls it."""

    is_local = True
    _worker_manager = SimpleNamespace(actor_ids=list)  # it has no remote actors

    def __init__(self, one: Any) -> None:
        self._learner = self.one = one

    def foreach_env_runner(self, call: Any, **_: Any) -> list[Any]:
        return [] if call == "sample" else [call(self.one)]

    foreach_env_runner_async_fetch_ready = foreach_env_runner

    def foreach_learner(self, call: Any, **more: Any) -> list[Any]:
        answer = call(self.one, **more)
        return [SimpleNamespace(ok=True, get=lambda: answer)]

    def __len__(self) -> int:
        return 0

    def get_state(self, **_: Any) -> dict[str, Any]:
        return {"learner": {"rl_module": WEIGHTS, "weights_seq_no": self.one._weights_seq_no}}

    def update(self) -> None:
        self.one._weights_seq_no += 1

    def num_remote_workers(self) -> int:
        return 0

    def num_healthy_remote_workers(self) -> int:
        return 1


class Algorithm:
    """What learning calls of RLlib's algorithm, with a learner that learns nothing and files that can't be read."""

    def __init__(self) -> None:
        self.learner = SimpleNamespace(_weights_seq_no=0, compute_loss_for_module=None, _optimizer_lr_schedules={})
        self.learner_group = Group(self.learner)
        self.env_runner_group = Group(SimpleNamespace(set_state=lambda state: None, report_training=lambda report: None))
        self.config = SimpleNamespace(num_env_runners=0)
        self.env_runner = SimpleNamespace(get_state=lambda **_: {}, set_state=lambda state: None)
        self.local_replay_buffer = None
        self.trained = 0
        self.after_train: Callable[[int], None] = lambda trained: None
        self.unreadable = 0
        """Times that a checkpoint can't be read from now on."""

    def train(self) -> dict[str, Any]:
        self.trained += 1
        self.after_train(self.trained)
        self.env_runner_group.foreach_env_runner("sample")
        self.learner_group.update()
        versions = {"default_policy": {"weights_seq_no": self.learner._weights_seq_no}}
        return {"env_runners": {"num_env_steps_sampled": STEPS}, "learners": versions}

    def restore_from_path(self, path: str) -> None:
        if self.unreadable > 0:
            self.unreadable -= 1
            raise OSError(5, "Input/output error")

    def save_to_path(self, path: str) -> None:
        """Write nothing beside what is served."""


class Run:
    """Learning of an algorithm that is rolled back to its first checkpoint in the third iteration."""

    def __init__(self, folder: Path, last: int = 5) -> None:
        config = load(
            ServerConfig,
            None,
            {
                "run_folder": folder,
                "spaces.observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [4]},
                "spaces.action": {"type": "Discrete", "n": 2},
                "guard.enabled": False,
                "learner.retry_backoff_s": 0.01,
                "checkpoints.every_iterations": 0,
            },
        )
        self.algorithm: Any = Algorithm()
        self.checkpoints = CheckpointFolder(folder / "checkpoints", keep=3, spaces=config.spaces)
        state = {"rl_module": WEIGHTS}
        self.checkpoints.save(lambda path: (path / SERVED_FILE).write_bytes(pickle.dumps(state)), Progress(1, STEPS, 1, 1))
        self.stopping = threading.Event()
        self.safe_point = SafePoint(lambda: None, self.stopping)
        link: Any = SimpleNamespace(
            offer=lambda state: None, keep=lambda *_: None, ask=lambda *_, **more: [], order=lambda *_, **more: None
        )
        metrics = DaemonMetrics(folder, None)
        self.learning = Learning(config, self.algorithm, self.checkpoints, link, self.safe_point, self.stopping, metrics)
        self.progress: list[Progress] = []
        self.failures: set[tuple[int, str]] = set()
        self.last = last
        self.algorithm.after_train = self.step

    def step(self, trained: int) -> None:
        self.progress.append(self.learning.progress)
        self.failures.add((self.learning.failures, self.learning.last_failure))
        if trained == 3:
            self.learning.roll_back(1, 0)
        if trained >= self.last:
            self.stopping.set()

    def train(self) -> None:
        """Train until the last iteration; a daemon that goes round without an end is stopped after 5 s."""
        timer = threading.Timer(5.0, self.stopping.set)
        timer.start()
        try:
            self.learning.train_until_stopped(MultiSink(), {})
        finally:
            timer.cancel()
            timer.join()


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
        told.append(run.learning.last_failure)
        run.learning.pause(False)

    def step(trained: int) -> None:
        if trained == 3:
            run.learning.roll_back(1, 0)
            run.learning.pause(True)
            threading.Timer(0.2, resume).start()
        elif trained == 4:
            run.stopping.set()

    run.algorithm.after_train = step
    run.train()
    assert "Input/output error" in told[0]
    assert run.learning.rolling_back is None
