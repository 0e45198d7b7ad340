"""A guarded learner undoes an update whose batch, loss, weights or optimizer are not finite, or that goes too far, and says why."""

from __future__ import annotations

import copy
import functools
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import COMPONENT_OPTIMIZER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.guard.findings import BATCH, KL, LOSS, MOVE, OPTIMIZER, WEIGHTS, RefusedUpdate
from policyserver.server.guard.update_guard import install, take_findings
from tests.server.core_harness import ACTION, OBSERVATION, CoreHarness, module_of, policy_of, ppo_config, spaces_of

pytestmark = pytest.mark.long


@functools.cache
def recorded(model: str) -> bytes:
    harness = CoreHarness(policy_of(module_of(model)))
    try:
        for name, steps in (("a", 12), ("b", 7), ("c", 30)):
            harness.play(name, steps)
        return pickle.dumps(harness.segments())
    finally:
        harness.close()


class Guarded:
    """A PPO learner with a guard, which had two good updates."""

    def __init__(self, model: str = "mlp", **limits: Any) -> None:
        self.model = model
        self.minibatches: dict[str, int] = {}
        self.learner = ppo_config(model).build_learner(spaces=spaces_of(OBSERVATION, ACTION))
        install(self.learner, config=GuardConfig(**limits))
        for _ in range(2):
            assert self.update() == []

    def update(self) -> list[RefusedUpdate]:
        self.results = self.learner.update(
            episodes=pickle.loads(recorded(self.model)), timesteps={"num_env_steps_sampled_lifetime": 100}, **self.minibatches
        )
        return take_findings(self.learner)

    def state(self) -> list[Any]:
        """All that an update may change, as numbers."""
        state = copy.deepcopy(self.learner.get_state(components=[COMPONENT_RL_MODULE, COMPONENT_OPTIMIZER]))
        coefficients = [float(value) for value in self.learner.curr_kl_coeffs_per_module.values()]
        return [state[COMPONENT_RL_MODULE], state[COMPONENT_OPTIMIZER], coefficients]

    def hook(self, name: str, wrap: Callable[[Any], Any]) -> Callable[[], None]:
        """Wrap a method of the learner, and return what takes that back."""
        original = getattr(self.learner, name)
        setattr(self.learner, name, wrap(original))
        return lambda: setattr(self.learner, name, original)


def column(name: str, value: float) -> Callable[[Guarded], Callable[[], None]]:
    """Have a column of each batch spoiled, as by a learner connector."""

    def plant(guarded: Guarded) -> Callable[[], None]:
        def wrap(connector: Any) -> Any:
            def spoiling(**arguments: Any) -> Any:
                batch = connector(**arguments)
                batch[DEFAULT_MODULE_ID][name].view(-1)[2] = value
                return batch

            return spoiling

        return guarded.hook("_learner_connector", wrap)

    return plant


def after_step(change: Callable[[Any], None]) -> Callable[[Guarded], Callable[[], None]]:
    """Have something changed behind each step of the optimizer."""

    def plant(guarded: Guarded) -> Callable[[], None]:
        def wrap(apply: Any) -> Any:
            def spoiling(gradients: Any) -> None:
                apply(gradients)
                change(guarded.learner)

            return spoiling

        return guarded.hook("apply_gradients", wrap)

    return plant


def loss_of(value: float) -> Callable[[Guarded], Callable[[], None]]:
    return lambda guarded: guarded.hook("compute_loss_for_module", lambda compute: lambda **arguments: compute(**arguments) * value)


def optimizer(learner: Any) -> Any:
    return next(iter(learner._named_optimizers.values()))


@torch.no_grad()
def spoil_weight(learner: Any) -> None:
    next(learner.module[DEFAULT_MODULE_ID].parameters()).view(-1)[5] = math.nan


def spoil_moment(learner: Any) -> None:
    next(iter(optimizer(learner).state.values()))["exp_avg_sq"].view(-1)[0] = math.inf


def learning_rate(value: float) -> Callable[[Guarded], Callable[[], None]]:
    def plant(guarded: Guarded) -> Callable[[], None]:
        (group,) = optimizer(guarded.learner).param_groups
        before, group["lr"] = group["lr"], value
        return lambda: group.update(lr=before)

    return plant


PLANTED = {
    "NaN rewards": (
        column(Columns.REWARDS, math.nan),
        BATCH,
        r"default_policy/rewards: 1 of \d+ numbers are not finite, the first is nan at \[2\]",
    ),
    "inf observations": (column(Columns.OBS, math.inf), BATCH, r"default_policy/obs: 1 of \d+ .* the first is inf at \[0, 2\]"),
    "NaN logits": (column(Columns.ACTION_DIST_INPUTS, math.nan), BATCH, "action_dist_inputs"),
    "NaN loss": (loss_of(math.nan), LOSS, "default_policy: the loss of a minibatch is nan"),
    "inf loss": (loss_of(math.inf), LOSS, "default_policy: the loss of a minibatch is -?inf"),
    "NaN weight": (after_step(spoil_weight), WEIGHTS, "default_policy/.*weight"),
    "inf moment": (after_step(spoil_moment), OPTIMIZER, "exp_avg_sq: 1 of"),
    "learning rate 100": (learning_rate(100.0), MOVE, "expected its weights to move by at most 10 times their size"),
}


@pytest.mark.parametrize(("plant", "reason", "text"), PLANTED.values(), ids=PLANTED)
def test_a_bad_update_is_undone_and_named_and_the_next_good_one_learns(plant: Any, reason: str, text: str) -> None:
    guarded = Guarded()
    learned = weights(guarded.state())
    take_back = plant(guarded)
    before = guarded.state()
    for in_a_row in (1, 2):
        (finding,) = guarded.update()
        assert (finding.reason, finding.in_a_row, finding.weights_seq_no) == (reason, in_a_row, 2 + in_a_row)
        assert re.search(text, finding.what), finding.what
        assert finding.batch["default_policy/rewards"].shape == finding.batch["default_policy/action_logp"].shape
        np.testing.assert_equal(guarded.state(), before)
        assert DEFAULT_MODULE_ID in guarded.results, "by which PPO knows what to push"
    take_back()
    assert guarded.update() == []
    assert not np.array_equal(weights(guarded.state()), learned), "it learns on"
    plant(guarded)
    assert [finding.in_a_row for finding in guarded.update()] == [1]


def weights(state: list[Any]) -> Any:
    return np.concatenate([np.ravel(value) for value in state[0][DEFAULT_MODULE_ID].values()])


def test_an_update_that_goes_wrong_in_the_middle_is_ended_and_undone() -> None:
    guarded = Guarded()
    guarded.minibatches = {"minibatch_size": 16, "num_epochs": 50}
    learning_rate(1e30)(guarded)
    before = guarded.state()
    (finding,) = guarded.update()
    assert finding.reason in (LOSS, WEIGHTS, OPTIMIZER, MOVE)
    np.testing.assert_equal(guarded.state(), before)


def test_a_change_of_the_policy_beyond_the_bound_is_undone() -> None:
    guarded = Guarded("lstm_shared", max_kl=0.01)
    learning_rate(0.3)(guarded)
    before = guarded.state()
    (finding,) = guarded.update()
    assert finding.reason == KL
    assert "expected a policy within 0.01 nats" in finding.what
    np.testing.assert_equal(guarded.state(), before)


def test_no_bound_is_none() -> None:
    guarded = Guarded(max_move=None, max_kl=None)
    learning_rate(100.0)(guarded)
    assert {finding.reason for finding in guarded.update()} <= {LOSS, WEIGHTS, OPTIMIZER}


@pytest.mark.parametrize("model", ["mlp", "lstm_apart"])
def test_good_updates_learn_what_they_learn_without_a_guard(model: str) -> None:
    learned = []
    for guard in (True, False):
        torch.manual_seed(3)
        learner = ppo_config(model).build_learner(spaces=spaces_of(OBSERVATION, ACTION))
        if guard:
            install(learner, config=GuardConfig())
        for _ in range(3):
            np.random.seed(0)
            learner.update(
                episodes=pickle.loads(recorded(model)), minibatch_size=16, num_epochs=2, timesteps={"num_env_steps_sampled_lifetime": 1}
            )
        assert take_findings(learner) == []
        learned.append(learner.get_state(components=[COMPONENT_RL_MODULE, COMPONENT_OPTIMIZER]))
    np.testing.assert_equal(learned[0], learned[1])


def test_logits_by_which_a_policy_excludes_actions_are_no_fault() -> None:
    guarded = Guarded()
    column(Columns.ACTION_DIST_INPUTS, -math.inf)(guarded)
    assert all(finding.reason != BATCH for finding in guarded.update())


def test_what_fails_for_another_reason_is_undone_and_raised() -> None:
    guarded = Guarded()
    before = guarded.state()
    calls = iter(range(100))

    def failing(compute: Any) -> Any:
        def compute_or_fail(**arguments: Any) -> Any:
            if next(calls) == 2:
                raise ZeroDivisionError("of the user's own loss")
            return compute(**arguments)

        return compute_or_fail

    guarded.minibatches = {"minibatch_size": 16}
    guarded.hook("compute_loss_for_module", failing)
    with pytest.raises(ZeroDivisionError):
        guarded.update()
    np.testing.assert_equal(guarded.state(), before)
    assert guarded.update() == []


def test_a_batch_beyond_the_quarantine_is_not_copied() -> None:
    guarded = Guarded(quarantine_bytes=100)
    column(Columns.REWARDS, math.nan)(guarded)
    (finding,) = guarded.update()
    assert dict(finding.batch) == {}
