"""Whatever the algorithm, no action comes from an update that the guard refuses, and learning goes on after it.

Each answer says its policy version. The serving actor notes the sum of the weights that act under each version, at the place where they
begin to act; the learner that of its weights after each update that the guard let through.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.guard.findings import BATCH, LOSS, MOVE, RefusedUpdate
from policyserver.server.guard.update_guard import install, take_findings
from policyserver.server.processes.weights_sum import sha256_of_weights
from tests.server.live_algorithm import Crowd, learner_version, live_algorithm, train_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("private_ray"), pytest.mark.timeout(900)]


def keep_what_is_served(runner: Any) -> None:
    """Have a serving actor keep the version and the sum of the weights that act, each time that these change."""
    policy = runner._policy.live
    swap = policy.swap

    def note() -> None:
        runner.served.append((policy.weights_seq_no, sha256_of_weights(policy._net.module.state_dict())))

    def hooked(weights_seq_no: int) -> None:
        swap(weights_seq_no)
        note()

    runner.served = []
    policy.swap = hooked
    note()


def check_served(group: Any, answered: list[int], good: set[str]) -> None:
    """Hold that each answer came from weights that the guard let through, and that learning went on."""
    (served,) = group.foreach_env_runner(lambda runner: runner.served, local_env_runner=False)
    assert {sum_ for _, sum_ in served} <= good
    assert set(answered) <= {version for version, _ in served}
    assert len(set(answered)) > 3
    assert len({sum_ for _, sum_ in served}) > 3, "learning goes on"
    assert np.all(np.diff([version for version, _ in served]) >= 0)


class Learner:
    """The learner of an algorithm, with the sums of the weights after each of its good updates."""

    def __init__(self, algorithm: Any) -> None:
        self.learner = algorithm.learner_group._learner
        self.good = {self._sum()}
        self._connector = self.learner._learner_connector
        install(self.learner, config=GuardConfig())
        end = self.learner.after_gradient_based_update
        self.findings: list[RefusedUpdate] = []

        def hooked(**arguments: Any) -> None:
            end(**arguments)
            found = take_findings(self.learner)
            self.findings += found
            if not found:
                self.good.add(self._sum())

        self.learner.after_gradient_based_update = hooked

    def _sum(self) -> str:
        state = self.learner.get_state(components="rl_module", inference_only=True)
        return sha256_of_weights(state["rl_module"][DEFAULT_MODULE_ID])

    def set_lr(self, factor: float) -> None:
        for optimizer in self.learner._named_optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * factor

    def spoil(self, column: str, value: float) -> None:
        """Put a number into a column of every batch, as a learner connector might."""
        make = self._connector

        class Spoiling:
            def __call__(self, **arguments: Any) -> Any:
                batch = make(**arguments)
                batch[DEFAULT_MODULE_ID][column].view(-1)[3] = value
                return batch

        self.learner._learner_connector = Spoiling()

    def mend(self) -> None:
        self.learner._learner_connector = self._connector


@pytest.mark.parametrize("name", ["PPO", "APPO", pytest.param("IMPALA", marks=pytest.mark.thorough), "DQN", "SAC"])
def test_no_weights_of_a_refused_update_are_served(name: str) -> None:
    with live_algorithm(name) as (algorithm, address):
        group = algorithm.env_runner_group
        guarded = Learner(algorithm)
        group.foreach_env_runner(keep_what_is_served, local_env_runner=False)
        with Crowd(address) as crowd:
            spoil_and_learn(algorithm, guarded)
        check_served(group, crowd.versions, guarded.good)


def spoil_and_learn(algorithm: Any, guarded: Learner) -> None:
    """Plant each fault in turn, and learn on after it."""
    train_until(algorithm, learner_version(algorithm) + 3)
    assert guarded.findings == []
    planted: list[tuple[Callable[[], None], Callable[[], None], set[str]]] = [
        (lambda: guarded.set_lr(1e6), lambda: guarded.set_lr(1e-6), {LOSS, MOVE}),
        (lambda: guarded.spoil("rewards", math.nan), guarded.mend, {BATCH}),
        (lambda: guarded.spoil("obs", math.inf), guarded.mend, {BATCH}),
    ]
    for plant, mend, reasons in planted:
        plant()
        train_until(algorithm, learner_version(algorithm) + 3)
        mend()
        train_until(algorithm, learner_version(algorithm) + 2)
        found, guarded.findings = guarded.findings, []
        assert found
        assert {finding.reason for finding in found} <= reasons, found
        assert [finding.in_a_row for finding in found] == list(range(1, len(found) + 1))
    train_until(algorithm, learner_version(algorithm) + 3)
    assert guarded.findings == []
