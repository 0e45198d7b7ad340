"""Learners in processes of their own undo an update together, also if only one of them refuses it, and none of it is served."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.guard.findings import BATCH, LOSS, MOVE, RefusedUpdate, of_all_learners
from policyserver.server.guard.update_guard import install, take_findings
from policyserver.server.processes.weights_sum import sha256_of_weights
from tests.server.guard.test_guard_on_every_algorithm import check_served, keep_what_is_served
from tests.server.live_algorithm import Crowd, learner_version, live_algorithm, train_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("private_ray"),
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # ray.data's own, as RLlib shards a batch
]

RATE = 1e-2
FAULTS = {"lr": {LOSS, MOVE}, "obs": {BATCH}, "loss": {LOSS}}


def prepare(learner: Any) -> None:
    """Guard a learner in its process, and have its faults planted by an attribute and its states noted."""
    learner.planted = ""
    learner.seen = []
    connector = learner._learner_connector

    def spoiling(**arguments: Any) -> Any:
        batch = connector(**arguments)
        if learner.planted == "obs":
            batch[DEFAULT_MODULE_ID]["obs"].view(-1)[3] = math.inf
        return batch

    learner._learner_connector = spoiling
    begin, compute = learner.before_gradient_based_update, learner.compute_loss_for_module

    def before(**arguments: Any) -> None:
        begin(**arguments)
        for optimizer in learner._named_optimizers.values():
            optimizer.param_groups[0]["lr"] = 100.0 if learner.planted == "lr" else RATE

    def loss(**arguments: Any) -> Any:
        if learner.planted == "loss":
            raise ValueError("expected finite logits")  # as torch's distributions do, on one learner only
        return compute(**arguments)

    learner.before_gradient_based_update, learner.compute_loss_for_module = before, loss
    install(learner, config=GuardConfig())
    end = learner.after_gradient_based_update

    def after(**arguments: Any) -> None:
        end(**arguments)
        learner.seen.append((int(learner._weights_seq_no), sum_of(learner)))

    learner.after_gradient_based_update = after


def sum_of(learner: Any) -> str:
    state = learner.get_state(components="rl_module", inference_only=True)
    return sha256_of_weights(state["rl_module"][DEFAULT_MODULE_ID])


def plant(learner: Any, what: str) -> None:
    learner.planted = what


def seen(learner: Any) -> list[tuple[int, str]]:
    return list(learner.seen)


class Group:
    """The learners of an algorithm."""

    def __init__(self, algorithm: Any) -> None:
        self.group = algorithm.learner_group
        self.call(prepare)
        self.last = self.group._worker_manager.healthy_actor_ids()[-1]

    def call(self, function: Any, **arguments: Any) -> list[Any]:
        return [answer.get() for answer in self.group.foreach_learner(function, **arguments)]

    def plant(self, what: str) -> None:
        """Plant a fault in the last learner, or take it away."""
        self.call(plant, remote_actor_ids=[self.last], what=what)

    def findings(self) -> list[list[RefusedUpdate]]:
        return self.call(take_findings)


@pytest.mark.parametrize("learners", [1, 2])
def test_what_one_refuses_all_undo_and_nothing_of_it_is_served(learners: int) -> None:
    with live_algorithm("PPO", learners={"num_learners": learners}) as (algorithm, address), Crowd(address) as crowd:
        group = Group(algorithm)
        initial, *_ = group.call(sum_of)
        algorithm.env_runner_group.foreach_env_runner(keep_what_is_served, local_env_runner=False)
        train_until(algorithm, 3)
        assert group.findings() == [[]] * learners
        for what, reasons in FAULTS.items():
            if what == "loss" and learners == 1:
                continue  # an error that is no learner's but its own is raised
            group.plant(what)
            version = learner_version(algorithm)
            train_until(algorithm, version + 2)
            group.plant("")
            train_until(algorithm, learner_version(algorithm) + 2)
            found = group.findings()
            together = of_all_learners(found)
            assert len(together) >= 1, what
            if what != "loss":
                assert {finding.reason for finding in together} <= reasons
                assert not any(finding.is_by_another for finding in together), "the one that found it is told of"
                assert all(finding.batch for finding in together)
                assert all([finding.weights_seq_no for finding in each] == [one.weights_seq_no for one in together] for each in found)
            assert all(finding.is_by_another for each in found[:-1] for finding in each)
        states = group.call(seen)
        assert all(each == states[0] for each in states), "all have the same weights after each update"
        check_served(algorithm.env_runner_group, crowd.versions, {initial, *(sum_ for _, sum_ in states[0])})
