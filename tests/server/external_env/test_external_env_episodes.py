"""Calls of an ExternalEnv in this process arrive at the learner as they were said."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ray.rllib.env.external_env import ExternalEnv

from policyserver.common.errors import EpisodeFinishedError
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig, ServingConfig
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.runner.serving_loop import ServingLoop
from tests.server.core_harness import ACTIONS, OBSERVATION, arrived, module_of, observation, policy_of
from tests.server.external_env_harness import Served, in_thread, play, serve_env, serving_env


@pytest.mark.long
def test_an_episode_arrives_as_it_was_said(served: Served, env: Any) -> None:
    episode = env.start_episode()
    first = env.get_action(episode, observation(0))
    assert isinstance(first, np.int64)
    env.log_returns(episode, 0.5)
    env.log_returns(episode, 0.25, {"note": "second"})
    env.log_action(episode, observation(1), 2)
    last = env.get_action(episode, observation(2))
    env.log_returns(episode, 2.0)
    env.end_episode(episode, observation(3))
    (segment,) = served.segments()
    segment.validate()
    assert segment.get_observations()[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert segment.get_actions().tolist() == [first, 2, last]
    assert segment.get_rewards().tolist() == [0.75, 0.0, 2.0]
    assert segment.get_infos() == [{}, {"note": "second"}, {}, {}]
    assert segment.is_terminated
    assert not segment.is_truncated
    log_probs = segment.get_extra_model_outputs("action_logp")
    inputs = segment.get_extra_model_outputs("action_dist_inputs").astype(np.float64)
    expected = inputs - np.log(np.exp(inputs).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_probs, expected[np.arange(3), segment.get_actions()], atol=1e-6, err_msg="of the action that was taken")


@pytest.mark.long
def test_episodes_have_rllibs_ids_and_errors_and_leave_nothing_behind(served: Served, env: Any) -> None:
    generated = env.start_episode()
    assert len(generated) == 32
    env.start_episode(7)  # RLlib takes any key
    with pytest.raises(ValueError, match="Episode 7 is already started"):
        env.start_episode(7)
    with pytest.raises(ValueError, match="Episode nobody not found"):
        env.get_action("nobody", observation())
    env.get_action(7, observation())
    env.end_episode(7, observation(1))
    later: list[Callable[[], Any]] = [
        lambda: env.get_action(7, observation()),
        lambda: env.log_returns(7, 1.0),
        lambda: env.end_episode(7, observation()),
        lambda: env.start_episode(7),
    ]
    for call in later:
        with pytest.raises(ValueError, match="Episode 7 has already completed"):
            call()
    env.end_episode(generated, observation())
    assert len(served.segments()) == 1, "an episode without a step is none for the learner"
    served.settle()
    assert served.open_episodes == []
    assert served.statistics().episodes_open == 0


@pytest.mark.long
def test_the_ids_of_ended_episodes_are_remembered_within_bounds(env: Any) -> None:
    episodes = [play(env, 1) for _ in range(102)]
    assert env.start_episode(episodes[1]) == episodes[1], "forgotten"
    with pytest.raises(EpisodeFinishedError):
        env.start_episode(episodes[2])


@pytest.mark.long
def test_untrained_episodes_are_served_and_never_arrive(served: Served, env: Any) -> None:
    info = {"mine": 1}
    untrained = env.start_episode(training_enabled=False)
    for step in range(3):
        env.get_action(untrained, observation(step))
        env.log_returns(untrained, 100.0, info)
    play(env, 2)
    env.end_episode(untrained, observation(3))
    (segment,) = served.segments()
    assert segment.get_rewards().tolist() == [1.0, 1.0]
    assert info == {"mine": 1}, "RLlib writes into the caller's dict here"
    statistics = served.statistics()
    assert (statistics.steps_untrained, statistics.steps_completed, statistics.steps_waiting) == (3, 5, 0)


@pytest.mark.long
def test_a_reward_before_the_first_action_is_dropped_and_counted(served: Served, env: Any, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        episode = env.start_episode()
        env.log_returns(episode, 50.0)
        env.get_action(episode, observation(0))
        env.log_returns(episode, 1.0)
        env.end_episode(episode, observation(1))
    assert [segment.get_rewards().tolist() for segment in served.segments(2)] == [[1.0], [1.0]]
    assert served.statistics().rewards_dropped == 2
    assert caplog.text.count("reward 50 before the first action belongs to no action") == 1, "said once"


def test_an_info_belongs_to_its_step_as_it_was_then(served: Served, env: Any, caplog: pytest.LogCaptureFixture) -> None:
    shared: dict[str, Any] = {"step": 0, "list": [0]}
    episode = env.start_episode()
    for step in range(1, 3):
        env.get_action(episode, observation(step))
        shared["step"] = shared["list"][0] = step
        env.log_returns(episode, 1.0, shared)
    env.get_action(episode, observation(3))
    env.log_returns(episode, 1.0)
    env.get_action(episode, observation(4))
    env.log_returns(episode, 1.0, {"lock": threading.Lock()})
    env.get_action(episode, observation(5))
    env.log_returns(episode, 1.0, ["no dict"])
    env.end_episode(episode, observation(6))
    (segment,) = served.segments()
    assert segment.get_infos() == [{}, {"step": 1, "list": [1]}, {"step": 2, "list": [2]}, {}, {}, {}]
    assert shared == {"step": 2, "list": [2]}
    assert len(segment) == 5
    assert caplog.text.count("an info can't be pickled") == 1


def test_an_info_of_numbers_that_is_used_again_is_recorded_as_it_was(served: Served, env: Any) -> None:
    shared = {"step": 0, "score": np.float32(0.5)}
    episode = env.start_episode()
    for step in range(3):
        env.get_action(episode, observation(step))
        shared["step"] = step
        env.log_returns(episode, 1.0, shared)
    env.end_episode(episode, observation(3))
    (segment,) = served.segments()
    assert segment.get_infos() == [{}, *({"step": step, "score": 0.5} for step in range(3))]


@pytest.mark.long
def test_an_observation_given_at_the_end_may_change_afterwards(served: Served, env: Any) -> None:
    own = observation(0)
    for number in range(20):
        episode = env.start_episode()
        env.get_action(episode, own)
        own[:2] = number, 1.0
        env.end_episode(episode, own)
        own[:2] = 99.0, 0.0
    assert [segment.get_observations(-1)[0] for segment in served.segments(20)] == list(range(20))


def test_actions_have_the_form_of_the_environments_space() -> None:
    space = ACTIONS["box"]
    policy = policy_of(module_of(action="box"), action="box")
    serving_loop = ServingLoop(
        lambda: EpisodeCore(policy, OBSERVATION, space, EpisodesConfig(64), HandOffConfig()), OBSERVATION, space, ServingConfig()
    )
    serving_loop.start()
    env = ExternalEnv(space, OBSERVATION)
    serve_env(env, serving_loop)
    try:
        episode = env.start_episode()
        action = env.get_action(episode, observation(0))
        assert action.dtype == np.float32
        assert action in space
        given = np.array([1.5, 9.0], np.float32)
        env.log_action(episode, observation(1), given)
        env.end_episode(episode, observation(2))
        (segment,) = arrived(serving_loop.sample(2, 10.0))
    finally:
        serving_loop.stop()
    assert segment.get_actions()[1] == pytest.approx([0.75, 0.8]), "the module's form is from -1 to 1"


THREADS = 64


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("count", "steps"), [(2_000, 2), pytest.param(10_000, 10, marks=pytest.mark.slow)])
def test_of_thousands_of_open_episodes_no_step_and_no_end_is_lost(count: int, steps: int) -> None:
    episodes = EpisodesConfig(max_open=count)
    with serving_env(episodes=episodes, hand_off=HandOffConfig(capacity_steps=count * steps)) as served:
        env = served.env
        all_open = threading.Barrier(THREADS)

        def drive(numbers: range) -> None:
            mine = {number: env.start_episode() for number in numbers}
            for step in range(steps):
                for number, episode in mine.items():
                    env.get_action(episode, observation(number % 100, number // 100))
                    env.log_returns(episode, float(number))
                if step == 0:
                    all_open.wait(200.0)
            for number, episode in mine.items():
                env.end_episode(episode, observation(number % 100, number // 100))

        began = time.monotonic()
        for result in [in_thread(drive, range(first, count, THREADS)) for first in range(THREADS)]:
            result()
        seconds = time.monotonic() - began
        logging.getLogger(__name__).info("%d steps of %d open episodes in %.1f s", count * steps, count, seconds)
        segments = served.segments(count * steps)
        assert len(segments) == count
        numbers = set()
        for segment in segments:
            low, high = segment.get_observations(0)[:2]
            number = int(high * 100 + low)
            numbers.add(number)
            assert segment.is_terminated
            assert segment.get_rewards().tolist() == [number] * steps
        assert len(numbers) == count
        served.settle()
        assert served.open_episodes == []
        statistics = served.statistics()
        assert (statistics.episodes_open, statistics.episodes_finished, statistics.steps_dropped) == (0, count, 0)
