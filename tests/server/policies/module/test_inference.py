"""Actions are drawn by the policy's probabilities, new weights serve from their swap on, and a row without a sound answer is refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from policyserver.common.acting.action_form import ActionForm, UnsupportedSpaceError
from policyserver.common.flags import StepFlag
from policyserver.server.policies.policy import DrawKeys, StepRows
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from tests.server.core_harness import ACTION, ACTIONS, CoreHarness, Row, module_of, observation, policy_of, start

NONE = np.empty(0, np.int64)


def decide(policy: VectorizedPolicy, observations: Any) -> Any:
    count = len(observations)
    none, yes = np.zeros(count, np.bool_), np.ones(count, np.bool_)
    state = [np.zeros((count, *leaf.shape), leaf.dtype) for leaf in policy.initial_state]
    actions = np.zeros((count, *policy.layout.action[0]), policy.layout.action[1])
    by = DrawKeys(np.random.default_rng(5).integers(0, 2**63, count, np.uint64), np.zeros(count, np.int64))
    rows = StepRows(np.arange(count), yes, none, none, yes, np.zeros(count), [observations], {}, actions, state, NONE, NONE, by)
    return policy.decide(rows).decisions


def test_actions_are_drawn_with_the_probabilities_of_the_policy() -> None:
    policy = policy_of(module_of())
    decisions = decide(policy, np.repeat(observation(50, -30, 80)[None], 40_000, axis=0))
    probabilities = np.exp(decisions.outputs["action_dist_inputs"][0] - np.logaddexp.reduce(decisions.outputs["action_dist_inputs"][0]))
    counts = np.bincount(decisions.actions, minlength=3)
    errors = np.sqrt(40_000 * probabilities * (1 - probabilities))
    assert (np.abs(counts - 40_000 * probabilities) < 4 * errors + 1).all()


@pytest.mark.long
def test_log_probs_are_those_of_rllibs_own_distribution() -> None:
    for action in ACTIONS:
        module = module_of(action=action)
        policy = policy_of(module, action=action)
        observations = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
        decisions = decide(policy, observations)
        with torch.no_grad():
            inputs = module._forward_exploration({Columns.OBS: torch.from_numpy(observations)})[Columns.ACTION_DIST_INPUTS]
        expected = module.get_exploration_action_dist_cls().from_logits(inputs).logp(torch.from_numpy(decisions.actions))
        np.testing.assert_allclose(decisions.log_probs, expected.numpy(), rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(decisions.outputs["action_dist_inputs"], inputs.numpy(), atol=1e-6)


def test_without_exploration_the_likeliest_action_is_taken() -> None:
    policy = policy_of(module_of(), explore=False)
    decisions = decide(policy, np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32))
    assert (decisions.actions == decisions.outputs["action_dist_inputs"].argmax(axis=1)).all()


def test_an_answer_does_not_depend_on_who_shares_the_batch() -> None:
    policy = policy_of(module_of("lstm_shared"), explore=False)
    observations = np.random.default_rng(0).normal(size=(16, 10)).astype(np.float32)
    together = decide(policy, observations)
    for index in range(16):
        alone = decide(policy, observations[index : index + 1])
        np.testing.assert_allclose(alone.outputs["action_dist_inputs"][0], together.outputs["action_dist_inputs"][index], atol=1e-6)


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_of_clients_and_of_the_net_translate_both_ways(action: str) -> None:
    space = ACTIONS[action]
    form = ActionForm(space, normalize=True, clip=False)
    space.seed(0)
    executed = np.array([space.sample() for _ in range(100)])
    back = form.to_environment(form.from_environment(executed))
    np.testing.assert_allclose(back, executed, atol=1e-5)
    assert back.dtype == space.dtype
    if isinstance(space, gym.spaces.Box):
        assert np.abs(form.from_environment(executed)).max() <= 1.0 + 1e-6
        assert form.to_environment(np.array([[-7.0, 7.0]], np.float32)).tolist() == [[-2.0, 10.0]]


@pytest.mark.parametrize("action", ["box", "shifted"])
def test_a_given_action_is_stored_as_the_net_would_have_chosen_it(make_harness: Callable[..., CoreHarness], action: str) -> None:
    harness = make_harness(action=action)
    taken: Any = np.array([0.7, 3.3], np.float32) if action == "box" else 7
    stored: Any = [0.35, -0.34] if action == "box" else 2
    given, own = start("a", flags=StepFlag.ACTION_GIVEN, action=taken), start("b")
    answers = harness.send(given, own)
    assert np.array_equal(answers[0].action, taken), "to the last bit, though 0.7 scaled there and back is another number"
    assert ACTIONS[action].contains(answers[1].action) or np.isclose(answers[1].action, np.clip(answers[1].action, -2, 10)).all()
    override = StepFlag.ACTION_GIVEN | StepFlag.OVERRIDE
    harness.one(Row(answers[1].handle, 0, override, action=taken))
    harness.send(Row(answers[0].handle, 1, StepFlag.TERMINATED), Row(answers[1].handle, 1, StepFlag.TERMINATED))
    first, second = harness.segments()
    for segment in (first, second):
        np.testing.assert_allclose(segment.get_actions(0), stored, atol=1e-6)
    expected = (
        module_of(action=action)
        .get_exploration_action_dist_cls()
        .from_logits(torch.from_numpy(first.get_extra_model_outputs("action_dist_inputs")))
        .logp(torch.tensor([stored]))
    )
    for segment in (first, second):
        assert segment.get_extra_model_outputs("action_logp", 0) == pytest.approx(float(expected[0]), abs=1e-5)


def test_new_weights_serve_from_the_swap_on_and_not_before(make_harness: Callable[..., CoreHarness]) -> None:
    policy = policy_of(module_of(), explore=False)
    harness = make_harness(policy)
    first = harness.one(start("a", observation(1, 2, 3)))
    other = {name: torch.randn_like(value) for name, value in module_of().state_dict().items()}
    policy.load_spare(other)
    second = harness.one(Row(first.handle, 1, observation=observation(1, 2, 3)))
    assert (second.log_prob, second.weights_seq_no) == (first.log_prob, 0)
    harness.core.serve_weights(8)
    third = harness.one(Row(first.handle, 2, observation=observation(1, 2, 3)))
    assert third.log_prob != first.log_prob
    assert third.weights_seq_no == 8
    assert harness.one(Row(first.handle, 2, observation=observation(1, 2, 3))).weights_seq_no == 8
    assert harness.core.snapshot().weights_seq_no == 8
    harness.one(Row(first.handle, 3, StepFlag.TERMINATED))
    (segment,) = harness.segments()
    assert segment.get_extra_model_outputs("weights_seq_no").tolist() == [0, 0, 8]
    assert harness.core.snapshot().staleness_mean == pytest.approx(16 / 3)


def test_a_net_that_gives_nan_costs_an_incident_and_no_half_step(
    make_harness: Callable[..., CoreHarness], caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of(module_of("lstm_shared"))
    harness = make_harness(policy)
    handle = harness.one(start("a", observation(1))).handle
    healthy = module_of("lstm_shared").state_dict()
    policy.load_spare({name: torch.full_like(value, float("nan")) for name, value in healthy.items()})
    policy.swap(1)
    row = Row(handle, 1, reward=1.0, observation=observation(2), info={"n": 1})
    with caplog.at_level(logging.ERROR):
        answers = harness.send(row, start("b"))
    (incident,) = {re.search(r"incident (\w+)", answer.error.message)[1] for answer in answers if answer.error}  # type: ignore[index]
    assert [answer.error.reason for answer in answers if answer.error] == ["INTERNAL"] * 2
    assert incident in caplog.text
    assert "no finite log-probability" in caplog.text
    statistics = harness.core.snapshot()
    assert (statistics.reward_sum, statistics.steps_completed, statistics.actions, statistics.episodes_open) == (0.0, 0, 1, 1)
    harness.one(Row(handle, 1, StepFlag.TERMINATED, 1.0))
    policy.load_spare(healthy)
    policy.swap(2)
    assert [answer.error for answer in harness.send(start("b"))] == [None]
    (segment,) = harness.segments()
    assert segment.get_rewards().tolist() == [1.0]


def test_a_row_without_a_sound_answer_is_refused_alone(make_harness: Callable[..., CoreHarness]) -> None:
    module = module_of()
    weights = {name: torch.zeros_like(value) for name, value in module.state_dict().items()}
    first_layer = next(name for name, value in weights.items() if value.ndim == 2)
    weights[first_layer][0, 0] = float("inf")  # inf * 0 is NaN: an observation that begins with 0 has no answer
    policy = policy_of(module)
    policy.load_spare(weights)
    policy.swap(1)
    harness = make_harness(policy)
    unsound, sound = harness.send(start("a", observation(0.0, 1.0)), start("b", observation(1.0, 0.0)))
    assert unsound.error is not None
    assert unsound.error.reason == "INTERNAL"
    assert sound.error is None
    assert (harness.core.snapshot().episodes_open, harness.core.snapshot().actions) == (1, 1)


@pytest.mark.parametrize("space", [gym.spaces.MultiBinary(2), gym.spaces.Box(0, 5, (2,), np.int64), gym.spaces.Dict({"x": ACTION})])
def test_action_spaces_that_are_not_served_are_refused_at_the_start(space: gym.Space[Any]) -> None:
    with pytest.raises(UnsupportedSpaceError, match="expected a Box of floats, a Discrete or a flat MultiDiscrete"):
        ActionForm(space, normalize=True, clip=False)
