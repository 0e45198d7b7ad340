"""With RLlib's batch_mode "complete_episodes" the learner gets whole episodes, and what is held back for that is bounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import HandOffConfig
from policyserver.server.episodes import whole_episodes_queue
from tests.server.core_harness import (
    NEVER_WAITS,
    CoreHarness,
    Row,
    arrived,
    learner_batch,
    learner_of,
    module_of_learner,
    observation,
    policy_of,
    start,
)
from tests.server.episode_player import play, reference_states

Make = Callable[..., CoreHarness]
MAX_SEQ_LEN = 5


@pytest.fixture
def make(make_harness: Make) -> Make:
    def make(policy: Any = None, **hand_off: Any) -> CoreHarness:
        return make_harness(policy, hand_off=HandOffConfig(**hand_off), demand=replace(NEVER_WAITS, whole_episodes=True))

    return make


def begin(harness: CoreHarness, number: int, steps: int, first: int = 0) -> int:
    """Begin an episode with `steps` complete steps and a pending one; return its handle."""
    handle = harness.one(start(f"{number}-{first}", observation(number, 0))).handle
    for step in range(1, steps + 1):
        harness.one(Row(handle, step, reward=1.0, observation=observation(number, step), info={"step": step}))
    return handle


def end(harness: CoreHarness, handle: int, number: int, steps: int) -> None:
    harness.one(Row(handle, steps, StepFlag.TERMINATED, 1.0, observation(number, steps)))


def numbers(segments: list[Any]) -> list[int]:
    return [int(segment.get_observations(0)[0]) for segment in segments]


@pytest.mark.parametrize("segment_steps", [1, 7, 64])
@pytest.mark.parametrize("model", ["mlp", "lstm_shared", "lstm_apart"])
@pytest.mark.slow
def test_every_episode_arrives_as_one_as_it_was_said(make: Make, model: str, segment_steps: int) -> None:
    module = module_of_learner(model)
    harness = make(policy_of(module), segment_steps=segment_steps, max_segment_age_s=1e-9)
    played, episodes = play(harness, np.random.default_rng(segment_steps), episodes=12, longest=70, given_share=0.2, joined=True)
    arrived_by_number = dict(zip(numbers(episodes), episodes, strict=True))
    assert len(arrived_by_number) == len(episodes) == len(played)
    assert len({episode.id_ for episode in episodes}) == 12
    for said in played:
        episode = arrived_by_number[said.number]
        episode.validate()
        assert episode.is_numpy
        assert (int(episode.t_started), len(episode)) == (0, said.length)
        assert (episode.is_terminated, episode.is_truncated) == (said.terminated, not said.terminated)
        np.testing.assert_array_equal(episode.get_observations(), said.observations)
        np.testing.assert_array_equal(episode.get_actions(), said.actions)
        np.testing.assert_array_equal(episode.get_rewards(), np.array(said.rewards, np.float32))
        np.testing.assert_array_equal(episode.get_extra_model_outputs(Columns.ACTION_LOGP), np.array(said.log_probs, np.float32))
        np.testing.assert_array_equal(episode.get_extra_model_outputs(WEIGHTS_SEQ_NO), said.versions)
        if model != "mlp":
            states = reference_states(module, said)
            kept = episode.get_extra_model_outputs(Columns.STATE_OUT, slice(MAX_SEQ_LEN - 1, None, MAX_SEQ_LEN))
            expected = states[MAX_SEQ_LEN : said.length + 1 : MAX_SEQ_LEN]
            for index, state in enumerate(expected):
                tree.map_structure(lambda leaf, other, index=index: np.testing.assert_allclose(leaf[index], other, atol=1e-5), kept, state)
    if model != "mlp":
        assert_learner_starts_from_the_states_that_acted(model, module, played, episodes)


def assert_learner_starts_from_the_states_that_acted(model: str, module: Any, played: Any, episodes: Any) -> None:
    states = {said.number: reference_states(module, said) for said in played}
    batch = learner_batch(learner_of(model), episodes)
    first_observations = batch[Columns.OBS][:, 0].numpy()
    assert len(first_observations) == sum(-(-(said.length + 1) // MAX_SEQ_LEN) for said in played), "RLlib adds a step to each"
    for index, values in enumerate(first_observations):
        state = tree.map_structure(lambda leaf, index=index: leaf[index].numpy(), batch[Columns.STATE_IN])
        expected = states[int(values[0])][int(values[1])]
        tree.map_structure(lambda leaf, other: np.testing.assert_allclose(leaf, other, atol=1e-5), state, expected)


def test_infos_are_where_they_were_said(make: Make) -> None:
    harness = make(segment_steps=2)
    end(harness, begin(harness, 1, 5), 1, 6)
    (episode,) = harness.segments()
    assert episode.get_infos() == [{}, *({"step": step} for step in range(1, 6)), {}]


def test_nothing_of_an_open_episode_is_handed_off_and_no_episode_is_split(make: Make) -> None:
    harness = make(segment_steps=2)
    open_ = begin(harness, 0, 9)
    assert harness.segments() == []
    for number, steps in ((1, 5), (2, 7), (3, 1)):
        end(harness, begin(harness, number, steps - 1), number, steps)
    assert harness.core.snapshot().steps_waiting == 13

    def take(want_steps: int) -> list[int]:
        done = harness.loop.create_future()
        harness.on_loop(lambda: harness.core.sample(want_steps, 0.0, done.set_result))
        episodes = arrived(harness.loop.run_until_complete(done))
        assert all(episode.t_started == 0 and episode.is_done for episode in episodes)
        return [len(episode) for episode in episodes]

    assert take(14) == [], "only whole ones count"
    assert take(6) == [5, 7, 1], "what has ended belongs to this batch"
    end(harness, open_, 0, 10)
    assert take(1) == [10]
    assert harness.pages_used == 0


def test_episodes_are_dropped_whole_when_the_learner_is_behind_but_never_the_newest(make: Make) -> None:
    harness = make(segment_steps=2, capacity_steps=8)
    for number, steps in ((1, 3), (2, 3), (3, 3)):
        end(harness, begin(harness, number, steps - 1), number, steps)
    statistics = harness.core.snapshot()
    assert (statistics.steps_waiting, statistics.steps_dropped) == (6, 3)
    end(harness, begin(harness, 4, 19), 4, 20)
    statistics = harness.core.snapshot()
    assert (statistics.steps_waiting, statistics.steps_dropped) == (20, 9), "longer than all that may wait"
    assert [len(episode) for episode in harness.segments()] == [20]
    assert harness.pages_used == 0


def test_what_is_held_back_is_bounded_and_an_episode_that_lost_a_part_never_arrives(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(whole_episodes_queue, "_MOST_HELD_STEPS", 8)
    harness = make(segment_steps=2)
    handles = {number: begin(harness, number, 5) for number in (1, 2, 3)}
    statistics = harness.core.snapshot()
    assert statistics.steps_dropped == 4, "the two whole segments of the oldest"
    for number, handle in handles.items():
        end(harness, handle, number, 6)
    assert numbers(harness.segments()) == [2, 3]
    statistics = harness.core.snapshot()
    assert (statistics.steps_completed, statistics.steps_dropped, statistics.steps_handed_off) == (18, 6, 12)
    assert "open episodes have more than 8 steps; the oldest are dropped whole" in caplog.text
    assert harness.pages_used == 0
    end(harness, begin(harness, 4, 5), 4, 6)
    assert numbers(harness.segments()) == [4], "the slot of a dropped episode is as good as any"


@pytest.mark.parametrize("steps", [4, 5])
def test_a_client_that_is_gone_leaves_its_episodes_whole_up_to_the_last_complete_step(make: Make, steps: int) -> None:
    harness = make(segment_steps=2)
    begin(harness, 1, steps)
    begin(harness, 2, 0)
    harness.core.reap(harness.client, ["1-0", "2-0"])
    (episode,) = harness.segments()
    assert len(episode) == steps
    assert episode.get_observations()[:, 1].tolist() == list(range(steps + 1))
    assert (episode.is_terminated, episode.is_truncated) == (False, True)
    assert harness.pages_used == 0
