"""However an ExternalEnv uses its public methods, a served one reaches the policy and one that nobody serves stays RLlib's."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from ray.rllib.env.external_env import ExternalEnv

from policyserver.server.external_env.rllib_methods import served_environment
from tests.server.core_harness import ACTION, observation
from tests.server.external_env_harness import Idle, in_thread, play, serve_env, serving_env
from tests.server.serving_loop_harness import running_serving_loop


class Overriding(Idle):
    """Overrides each public method and goes on with `super()`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        super().__init__()

    def start_episode(self, *args: Any, **options: Any) -> Any:
        self.calls.append("start_episode")
        return super().start_episode(*args, **options)

    def get_action(self, episode_id: Any, observation: Any) -> Any:
        self.calls.append("get_action")
        return super().get_action(episode_id, observation * 0.5)

    def log_action(self, episode_id: Any, observation: Any, action: Any) -> None:
        self.calls.append("log_action")
        super().log_action(episode_id, observation * 0.5, action)

    def log_returns(self, episode_id: Any, reward: float, info: Any = None) -> None:
        self.calls.append("log_returns")
        super().log_returns(episode_id, reward * 2, info=info)

    def end_episode(self, episode_id: Any, observation: Any) -> None:
        self.calls.append("end_episode")
        super().end_episode(episode_id, observation=observation * 0.5)


def test_an_override_that_calls_super_is_heard_and_obeyed() -> None:
    with serving_env(Overriding) as served:
        env = served.env
        play(env, 2)
        (segment,) = served.segments(2)
        assert segment.get_observations()[:, 0].tolist() == [0.0, 0.5, 1.0]
        assert segment.get_rewards().tolist() == [2.0, 2.0]
        assert env.calls == ["start_episode", *["get_action", "log_returns"] * 2, "end_episode"]


def test_the_methods_may_be_called_by_the_class() -> None:
    with serving_env() as served:
        env = served.env
        episode = ExternalEnv.start_episode(env, episode_id="mine", training_enabled=True)
        assert ExternalEnv.get_action(env, episode, observation(0)) in ACTION
        ExternalEnv.log_returns(env, "mine", reward=3.0, info={"a": 1})
        ExternalEnv.log_action(env, episode_id="mine", observation=observation(1), action=2)
        ExternalEnv.end_episode(env, episode, observation=observation(2))
        (segment,) = served.segments(2)
        assert (segment.get_rewards().tolist(), segment.get_actions()[1]) == ([3.0, 0.0], 2)
        assert segment.get_infos()[1] == {"a": 1}


class Saving(Idle):
    """Saves its bound methods, begins episodes and asks from a thread, all while it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.ask, self.log, self.end = self.get_action, self.log_returns, self.end_episode
        self.early = self.start_episode("early")
        self.answer = in_thread(self.ask, self.early, observation(0))


def test_bound_methods_saved_and_episodes_begun_while_it_is_made_are_served() -> None:
    with serving_env(Saving) as served:
        env = served.env
        assert env.answer() in ACTION
        env.log(env.early, 5.0)
        env.end(env.early, observation(1))
        (segment,) = served.segments(1)
        assert segment.get_rewards().tolist() == [5.0]
        with pytest.raises(ValueError, match="Episode early has already completed"):
            env.start_episode("early")


def test_an_environment_that_was_made_before_anybody_asked_for_it_is_served() -> None:
    env = Idle()
    assert served_environment(env) is None
    with running_serving_loop() as harness:
        thread = serve_env(env, harness.serving_loop)
        thread.start()
        assert len(play(env, 2)) == 32
        assert [len(segment) for segment in harness.segments(2)] == [2]
    env.over.set()
    env.join(60.0)


def test_an_environment_whose_episodes_are_rllibs_already_is_refused_by_name() -> None:
    env = Idle()
    env.start_episode("by RLlib")
    with running_serving_loop() as harness, pytest.raises(ValueError, match="received Idle that has begun episodes already; make it in"):
        serve_env(env, harness.serving_loop)


def test_an_environment_that_nobody_serves_keeps_rllibs_own_methods() -> None:
    env = Idle()
    with serving_env() as served:
        play(served.env, 1)
        base = env.to_base_env()
        answer = in_thread(lambda: (env.start_episode("a"), env.get_action("a", np.ones(2)))[1])
        observations, *_ = base.poll()
        assert list(observations) == ["a"]
        base.send_actions({"a": {next(iter(observations["a"])): 42}})
        assert answer() == 42
        env.log_returns("a", 1.5)
        env.end_episode("a", np.zeros(2))
        _, rewards, terminateds, *_ = base.poll()
        assert (list(rewards["a"].values()), terminateds["a"]["__all__"]) == ([1.5], True)
    env.over.set()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("start_episode", ["episode_id", "training_enabled"]),
        ("get_action", ["episode_id", "observation"]),
        ("log_action", ["episode_id", "observation", "action"]),
        ("log_returns", ["episode_id", "reward", "info"]),
        ("end_episode", ["episode_id", "observation"]),
    ],
)
def test_rllibs_methods_have_the_parameters_that_a_served_environment_takes(name: str, parameters: list[str]) -> None:
    rllibs = inspect.signature(inspect.unwrap(getattr(ExternalEnv, name)))
    assert list(rllibs.parameters) == ["self", *parameters]
