"""What arrives at the learner is what the clients said, step by step, and RLlib's own pipeline makes of it what it should."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import tree
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import HandOffConfig
from tests.server.core_harness import (
    CoreHarness,
    Row,
    learner_batch,
    learner_of,
    module_of,
    module_of_learner,
    observation,
    policy_of,
    start,
)
from tests.server.episode_player import by_episode, play, reference_states

Make = Callable[..., CoreHarness]
SEGMENT_STEPS = [1, 5, 20]
MAX_SEQ_LEN = 5


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "segment_steps", "joined"),
    [
        ("mlp", 1, True),
        ("mlp", 7, False),
        ("mlp", 64, True),
        ("lstm_shared", 1, False),
        ("lstm_shared", 7, True),
        ("lstm_shared", 20, False),
        ("lstm_shared", 64, True),
    ],
)
def test_the_segments_of_an_episode_are_what_the_client_said(make_harness: Make, model: str, segment_steps: int, joined: bool) -> None:
    harness = make_harness(policy_of(module_of_learner(model)), hand_off=HandOffConfig(segment_steps=segment_steps))
    random = np.random.default_rng(segment_steps)
    played, segments = play(harness, random, episodes=12, longest=100, given_share=0.2, swap_weights=True, joined=joined)
    if model == "lstm_shared":  # where its sequences begin and the ends of segments fit together
        segment_steps = max(segment_steps // MAX_SEQ_LEN, 1) * MAX_SEQ_LEN
    assert len({segment.id_ for segment in segments}) == len(segments), "each segment has an id of its own"
    parts_of = by_episode(segments)
    for episode in played:
        parts = parts_of.pop(episode.number)
        begins = [int(part.t_started) for part in parts]
        if joined:
            assert [0, *(begin + len(part) for begin, part in zip(begins, parts, strict=True))] == [*begins, episode.length]
            assert {begin % segment_steps for begin in begins} == {0}
        else:
            assert begins == list(range(0, episode.length, segment_steps))
        assert [part.is_terminated for part in parts] == [False] * (len(parts) - 1) + [episode.terminated]
        assert [part.is_truncated for part in parts] == [False] * (len(parts) - 1) + [not episode.terminated]
        for part in parts:
            part.validate()
            assert part.is_numpy
            begin, end = int(part.t_started), int(part.t_started) + len(part)
            lookback = int(begin > 0)
            own = slice(begin - lookback, end)

            def read(getter: Any, *args: Any, lookback: int = lookback, length: int = len(part)) -> Any:
                return getter(*args, slice(-lookback, length), neg_index_as_lookback=True)

            np.testing.assert_array_equal(
                part.get_observations(slice(-lookback, len(part) + 1), neg_index_as_lookback=True),
                episode.observations[begin - lookback : end + 1],
            )
            np.testing.assert_array_equal(read(part.get_actions), episode.actions[own])
            np.testing.assert_array_equal(read(part.get_rewards), np.array(episode.rewards[own], np.float32))
            np.testing.assert_array_equal(
                read(part.get_extra_model_outputs, Columns.ACTION_LOGP), np.array(episode.log_probs[own], np.float32)
            )
            np.testing.assert_array_equal(read(part.get_extra_model_outputs, WEIGHTS_SEQ_NO), episode.versions[own])
    assert not parts_of
    if segment_steps < 60:
        assert joined == (max(map(len, segments)) > segment_steps)
    assert len({version for episode in played for version in episode.versions}) > 1


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("segment_steps", SEGMENT_STEPS)
@pytest.mark.parametrize("model", ["lstm_shared", "lstm_apart"])
@pytest.mark.slow
def test_the_learner_starts_each_sequence_from_the_state_that_acted(
    make_harness: Make, model: str, segment_steps: int, joined: bool
) -> None:
    module = module_of_learner(model)
    harness = make_harness(policy_of(module), hand_off=HandOffConfig(segment_steps=segment_steps))
    played, segments = play(harness, np.random.default_rng(segment_steps), episodes=8, longest=70, joined=joined)
    states = {episode.number: reference_states(module, episode) for episode in played}
    for segment in segments:
        number, begin = int(segment.get_observations(0)[0]), int(segment.t_started)
        if begin > 0:
            lookback = segment.get_extra_model_outputs(Columns.STATE_OUT, -1, neg_index_as_lookback=True)
            tree.map_structure(_assert_close, lookback, states[number][begin])
        kept = segment.get_extra_model_outputs(Columns.STATE_OUT, slice(MAX_SEQ_LEN - 1, None, MAX_SEQ_LEN))
        expected = states[number][begin + MAX_SEQ_LEN : begin + len(segment) + 1 : MAX_SEQ_LEN]
        for index, state in enumerate(expected):
            tree.map_structure(lambda leaf, other, index=index: _assert_close(leaf[index], other), kept, state)
    batch = learner_batch(learner_of(model), segments)
    first_observations = batch[Columns.OBS][:, 0]
    assert len(first_observations) == sum(-(-(len(segment)) // MAX_SEQ_LEN) for segment in segments)
    for index, values in enumerate(first_observations.numpy()):
        state = tree.map_structure(lambda leaf, index=index: leaf[index].numpy(), batch[Columns.STATE_IN])
        tree.map_structure(_assert_close, state, states[int(values[0])][int(values[1])])


@pytest.mark.long
@pytest.mark.parametrize("segment_steps", [1, 20])
@pytest.mark.parametrize("model", ["mlp", "lstm_shared", "lstm_apart"])
def test_a_ppo_learner_recomputes_the_log_probs_that_were_stored(make_harness: Make, model: str, segment_steps: int) -> None:
    harness = make_harness(policy_of(module_of_learner(model)), hand_off=HandOffConfig(segment_steps=segment_steps))
    played, segments = play(harness, np.random.default_rng(segment_steps), episodes=8, longest=50, given_share=0.2)
    steps = sum(len(segment) for segment in segments)
    assert steps == sum(episode.length for episode in played)
    batch = learner_batch(learner_of(model), segments)
    module = learner_of(model).module[DEFAULT_MODULE_ID].unwrapped()
    with torch.no_grad():
        out = module.forward_train(batch)
    distribution = module.get_train_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])
    real = batch[Columns.LOSS_MASK]
    assert int(real.sum()) == steps
    _assert_close(distribution.logp(batch[Columns.ACTIONS])[real].numpy(), batch[Columns.ACTION_LOGP][real].numpy())
    _assert_close(out[Columns.ACTION_DIST_INPUTS][real].numpy(), batch[Columns.ACTION_DIST_INPUTS][real].numpy())


@pytest.mark.long
@pytest.mark.parametrize("model", ["mlp", "lstm_shared", "lstm_apart"])
def test_a_ppo_learner_learns_from_the_segments(make_harness: Make, model: str) -> None:
    harness = make_harness(policy_of(module_of_learner(model)), hand_off=HandOffConfig(segment_steps=20))
    _, segments = play(harness, np.random.default_rng(0), episodes=10, longest=60)
    learner = learner_of(model)
    before = [parameter.detach().clone() for parameter in learner.module[DEFAULT_MODULE_ID].parameters()]
    results = learner.update(episodes=segments, num_epochs=1, minibatch_size=64)
    loss = results[DEFAULT_MODULE_ID]["total_loss"].peek()
    assert np.isfinite(loss)
    after = list(learner.module[DEFAULT_MODULE_ID].parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_page_older_than_its_limit_is_handed_off_though_it_is_not_full(make_harness: Make) -> None:
    harness = make_harness(hand_off=HandOffConfig(segment_steps=64, max_segment_age_s=1e-9))
    handle = harness.one(start("a", observation(0))).handle
    assert harness.segments() == [], "no step is complete"
    harness.one(Row(handle, 1, reward=1.0, observation=observation(1)))
    harness.one(Row(handle, 2, reward=2.0, observation=observation(2)))
    (first,) = harness.segments()
    harness.one(Row(handle, 3, StepFlag.TERMINATED, 3.0, observation(3)))
    (second,) = harness.segments()
    assert (first.get_rewards().tolist(), second.get_rewards().tolist()) == ([1.0, 2.0], [3.0])
    assert (int(second.t_started), second.is_terminated) == (2, True)


def _assert_close(left: Any, right: Any) -> None:
    np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.mark.long
def test_a_page_has_room_for_what_it_carries_on_however_short_segments_are_to_be(make_harness: Make) -> None:
    policy = policy_of(module_of(), state_every=1)
    policy.layout = dataclasses.replace(policy.layout, carried=9)  # as for returns of ten steps
    harness = make_harness(policy, hand_off=HandOffConfig(segment_steps=4, max_segment_age_s=1e-9))
    handle = harness.one(start("a", observation(0))).handle
    for number in range(1, 40):
        harness.blocks()  # nothing is waiting: all pages are marked as old
        harness.one(Row(handle, number, reward=1.0, observation=observation(number)))
    harness.one(Row(handle, 40, StepFlag.TERMINATED, 1.0, observation(40)))
    assert harness.core.snapshot().steps_handed_off + harness.core.snapshot().steps_waiting >= 40
