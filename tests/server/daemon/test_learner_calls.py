"""A learner in another process that does not answer is told: no call of all learners, and no undone update, is missed without a word."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from ray.rllib.utils.actor_manager import CallResult, RemoteCallResults, ResultOrError

from policyserver.common.settings import load
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.daemon_metrics import DaemonMetrics
from policyserver.server.daemon.learner_calls import LearnerCallError, of_learners
from policyserver.server.daemon.learning_guard import LearningGuard
from policyserver.server.daemon.roll_back import restore_under
from policyserver.server.guard.findings import LOSS, RefusedUpdate
from policyserver.server.processes.training_report import Progress


class Learners:
    """Two learners in other processes, with the answers that RLlib makes of theirs; one may fail, or be left out as dead."""

    is_local = False
    _learner = None

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.is_left_out = False
        self.findings: list[RefusedUpdate] = []

    def __len__(self) -> int:
        return 2

    def foreach_learner(self, call: Any, **arguments: Any) -> RemoteCallResults:
        answers = RemoteCallResults()
        answers.add_result(0, ResultOrError(result=self.findings), None)
        if not self.is_left_out:
            second = ResultOrError(error=self.failure) if self.failure is not None else ResultOrError(result=[])
            answers.add_result(1, second, None)
        assert all(isinstance(answer, CallResult) for answer in answers)
        return answers


def guard(learners: Any, folder: Path) -> LearningGuard:
    spaces = {
        "spaces.observation": {"type": "Box", "low": -math.inf, "high": math.inf, "shape": [4]},
        "spaces.action": {"type": "Discrete", "n": 2},
    }
    config = load(ServerConfig, None, {"run_folder": folder, **spaces})
    return LearningGuard(config, learners, DaemonMetrics(folder, None), lambda paused, *, by_guard=False: None)


@pytest.mark.parametrize("is_left_out", [False, True], ids=["fails", "is dead"])
def test_all_are_called_or_an_error_says_so(is_left_out: bool, tmp_path: Path) -> None:
    learners: Any = Learners()
    assert of_learners(learners, print) == [[], []]
    learners.failure, learners.is_left_out = OSError(5, "Input/output error"), is_left_out
    expected = "expected the answers of 2 learners, received 1" + ("$" if is_left_out else "; one said .*Input/output error")
    with pytest.raises(LearnerCallError, match=expected):
        of_learners(learners, print)
    with pytest.raises(LearnerCallError, match=expected):
        guard(learners, tmp_path)


def test_a_learner_that_keeps_its_policy_version_fails_a_roll_back() -> None:
    learners = Learners()
    learners.failure = OSError(5, "Input/output error")
    algorithm: Any = type("Algorithm", (), {"learner_group": learners, "restore_from_path": lambda self, path: None})()
    checkpoint: Any = type("Checkpoint", (), {"path": Path("checkpoint-00000001"), "progress": Progress(1)})()
    with pytest.raises(LearnerCallError, match="Input/output error"):
        restore_under(algorithm, checkpoint, 7)


def test_the_guard_tells_once_of_a_learner_that_does_not_say_what_it_undid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    learners = Learners()
    watching = guard(learners, tmp_path)
    learners.failure = OSError(5, "Input/output error")
    learners.findings = [RefusedUpdate(LOSS, "loss: nan", 3, 1)]
    for _ in range(3):
        watching.look(after_iteration=True)
    assert watching.fired == 3, "what the others say counts"
    assert caplog.text.count("a learner does not say which updates it has undone: OSError(5, 'Input/output error')") == 1
    learners.failure = None
    watching.look(after_iteration=True)
    assert "all learners answer again" in caplog.text
