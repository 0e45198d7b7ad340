"""RLlib's replay buffers, fed with what arrives at the learner: they hold these very steps and draw nothing but what happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import PrioritizedEpisodeReplayBuffer

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig
from tests.server.core_harness import CoreHarness, Row, module_of, observation, policy_of, start
from tests.server.episode_player import Played, by_episode, play, reference_states

Make = Callable[..., CoreHarness]
BUFFERS = [EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer]
SEGMENT_STEPS = 8
GAMMA = 0.9


def replaying(make: Make, n_step: int, module: Any = None, **options: Any) -> CoreHarness:
    """Make a core as it is for an algorithm with a replay buffer and returns of n steps."""
    policy = policy_of(module or module_of(), state_every=1)
    policy.layout = dataclasses.replace(policy.layout, carried=n_step - 1)
    hand_off = HandOffConfig(segment_steps=SEGMENT_STEPS, **options)
    return make(policy, episodes=EpisodesConfig(max_open=64, episode_idle_timeout_s=5.0), hand_off=hand_off)


def fed(buffer_class: Any, segments: list[SingleAgentEpisode], capacity: int = 100_000) -> Any:
    """Make a buffer and add what arrives, a few segments at a time."""
    buffer = buffer_class(capacity=capacity)
    buffer.rng = np.random.default_rng(1)
    for first in range(0, len(segments), 5):
        buffer.add(segments[first : first + 5])
    return buffer


def held(episodes: Iterable[SingleAgentEpisode]) -> list[tuple[int, int, int, float]]:
    """List the steps of episodes: whose, which, action and reward."""
    return sorted(
        (int(before[0]), int(before[1]), int(action), float(reward))
        for episode in episodes
        for before, action, reward in zip(episode.get_observations(), episode.get_actions(), episode.get_rewards(), strict=False)
    )


def said(everyone: list[Played]) -> list[tuple[int, int, int, float]]:
    return sorted(
        (episode.number, step, action, reward)
        for episode in everyone
        for step, (action, reward) in enumerate(zip(episode.actions, episode.rewards, strict=True))
    )


def check_draws(buffer: Any, everyone: list[Played], n_step: int, draws: int = 500) -> set[tuple[int, int]]:
    """Draw transitions, compare each with what was said, and return (episode, step) at which they begin."""
    exact = isinstance(buffer, PrioritizedEpisodeReplayBuffer)  # the other cuts returns short at the end of a segment
    beginnings = set()
    options = {"beta": 0.4} if exact else {}
    for drawn in buffer.sample(num_items=draws, n_step=n_step, gamma=GAMMA, sample_episodes=True, **options):
        (number, step), (end_number, end_step) = drawn.get_observations(0)[:2].astype(int), drawn.get_observations(-1)[:2].astype(int)
        episode, steps = everyone[number], end_step - step
        assert number == end_number
        assert steps == n_step if exact else 1 <= steps <= n_step
        assert int(drawn.get_actions(0)) == episode.actions[step]
        rewards = episode.rewards[step:end_step]
        assert drawn.get_rewards(0) == pytest.approx(sum(reward * GAMMA**power for power, reward in enumerate(rewards)), abs=1e-5)
        ends = end_step == episode.length and steps == n_step  # RLlib forgets it where it cut the return short
        assert drawn.is_terminated == (episode.terminated and ends)
        assert drawn.is_truncated == (not episode.terminated and ends)
        beginnings.add((int(number), int(step)))
    return beginnings


@pytest.mark.parametrize("buffer_class", BUFFERS)
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.long
def test_interleaved_episodes_are_held_step_for_step_and_drawn_as_they_were(make_harness: Make, buffer_class: Any, n_step: int) -> None:
    harness = replaying(make_harness, n_step)
    everyone, segments = play(harness, np.random.default_rng(2), episodes=30, longest=40, given_share=0.1)
    buffer = fed(buffer_class, segments)
    assert held(buffer.episodes) == said(everyone)
    beginnings = check_draws(buffer, everyone, n_step)
    assert len(beginnings) > 100


@pytest.mark.long
def test_the_end_of_an_episode_is_drawn_however_short_its_last_piece_would_be(make_harness: Make) -> None:
    """Without steps carried over, an episode of 17 steps would end with a segment of one step, from which no 3-step return begins."""
    harness = replaying(make_harness, n_step=3)
    lengths = range(3, 4 * SEGMENT_STEPS)
    for number in lengths:
        harness.play(f"{number}", number)
    segments = harness.segments_apart()
    assert sum(len(segment) for segment in segments) == sum(lengths)
    assert min(len(segment) for segment in segments) == 3
    assert sum(segment.is_terminated for segment in segments) == len(lengths)
    for pieces in ([segment for segment in segments if segment.t_started == 0], segments):
        assert max(len(piece) for piece in pieces) == SEGMENT_STEPS + 2
    fed(PrioritizedEpisodeReplayBuffer, segments).sample(num_items=100, n_step=3, beta=0.4, sample_episodes=True)


@pytest.mark.parametrize("buffer_class", BUFFERS)
@pytest.mark.long
def test_steps_that_were_dropped_reaped_or_evicted_leave_no_broken_rest(make_harness: Make, buffer_class: Any) -> None:
    harness = replaying(make_harness, n_step=3, capacity_steps=64)
    random = np.random.default_rng(3)
    everyone, segments = play(harness, random, episodes=40, longest=60)
    assert harness.core.snapshot().steps_dropped > 100
    arrived = held(segments)
    assert len(arrived) == len(set(arrived)) < len(said(everyone))
    assert set(arrived) <= set(said(everyone))
    check_draws(fed(buffer_class, segments), everyone, 3)

    evicting = fed(buffer_class, segments, capacity=100)
    assert len(evicting) <= 100 + SEGMENT_STEPS
    check_draws(evicting, everyone, 3)


@pytest.mark.long
@pytest.mark.parametrize("buffer_class", BUFFERS)
def test_an_episode_whose_client_is_gone_can_be_drawn_up_to_its_last_complete_step(make_harness: Make, buffer_class: Any) -> None:
    harness = replaying(make_harness, n_step=3)
    gone = harness.connect("gone")
    handle = harness.one(start("a", observation(0, 0)), gone).handle
    actions = [harness.one(Row(handle, number, reward=1.0, observation=observation(0, number)), gone).action for number in range(1, 22)]
    harness.disconnect(gone)
    harness.advance(6.0)
    buffer = fed(buffer_class, harness.segments_apart())
    assert [step for _, step, _, _ in held(buffer.episodes)] == list(range(len(actions)))
    assert [episode.is_truncated for episode in buffer.episodes] == [False, False, True]
    buffer.sample(num_items=100, n_step=3, gamma=GAMMA, sample_episodes=True)


@pytest.mark.long
def test_pages_handed_off_for_their_age_are_long_enough_to_draw_from(make_harness: Make) -> None:
    """From a buffer of nothing but shorter segments RLlib's `sample` never returns."""
    harness = replaying(make_harness, n_step=3, max_segment_age_s=0.0)
    handle = harness.one(start("a", observation(0, 0))).handle
    lengths = []
    for number in range(1, 40):
        harness.one(Row(handle, number, reward=1.0, observation=observation(0, number)))
        lengths += [len(segment) for segment in harness.segments()]
    harness.one(Row(handle, 40, StepFlag.TERMINATED, 1.0, observation(0, 40)))
    lengths += [len(segment) for segment in harness.segments()]
    assert sum(lengths) == 40
    assert min(lengths) == 3


@pytest.mark.long
@pytest.mark.parametrize("carried", [0, 3])
def test_sequences_of_a_recurrent_net_begin_with_the_state_that_it_had(make_harness: Make, carried: int) -> None:
    """As DQN draws them with an LSTM: anywhere, with one step of look-back for the state. Burn-in carries steps over."""
    module = module_of("lstm_shared")
    harness = replaying(make_harness, n_step=1 + carried, module=module)
    everyone, segments = play(harness, np.random.default_rng(4), episodes=12, longest=40)
    buffer = fed(EpisodeReplayBuffer, segments)
    states = {episode.number: reference_states(module, episode) for episode in everyone}
    drawn = buffer.sample(num_items=500, batch_length_T=5, n_step=1, lookback=1, sample_episodes=True)
    later = 0
    for sequence in drawn:
        number, step = sequence.get_observations(0)[:2].astype(int)
        if step > 0:
            later += 1
            state = sequence.get_extra_model_outputs(Columns.STATE_OUT, -1, neg_index_as_lookback=True)
            tree.map_structure(lambda own, true: np.testing.assert_allclose(own, true, atol=1e-6), state, states[number][step])
    assert later > 50
    assert set(by_episode(segments)) == set(range(12))
