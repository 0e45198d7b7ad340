"""Whatever the algorithm, no weights reach the serving actor from an update that the guard refuses, and learning goes on after it."""

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

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("private_ray"), pytest.mark.timeout(300)]


def keep_what_is_served(runner: Any) -> None:
    """Have a serving actor keep the version and the sum of all weights that it is brought."""
    runner.brought = []
    take = runner._take_weights

    def hooked(weights: Any, seq_no: int) -> None:
        take(weights, seq_no)
        runner.brought.append((runner.weights_seq_no, sha256_of_weights(runner.module.state_dict())))

    runner._take_weights = hooked


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


@pytest.mark.parametrize("name", ["PPO", "APPO", "IMPALA", "DQN", "SAC"])
def test_no_weights_of_a_refused_update_are_served(name: str) -> None:
    with live_algorithm(name) as (algorithm, address), Crowd(address):
        group = algorithm.env_runner_group
        guarded = Learner(algorithm)
        group.foreach_env_runner(keep_what_is_served, local_env_runner=False)
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
        (brought,) = group.foreach_env_runner(lambda runner: runner.brought, local_env_runner=False)
        assert len(brought) > 5
        assert {sum_ for _, sum_ in brought} <= guarded.good
        assert len({sum_ for _, sum_ in brought}) > 3, "learning goes on"
        assert np.all(np.diff([version for version, _ in brought]) >= 0)
