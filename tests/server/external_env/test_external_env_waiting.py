"""Callers of an ExternalEnv in this process who wait: for too long, for a server that fails, and until the end."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from ray.rllib.env.external_env import ExternalEnv

from policyserver.client import PolicyClient
from policyserver.common.errors import (
    ActionTimeoutError,
    ServerInternalError,
    ServerUnavailableError,
)
from policyserver.server.episodes.demand import Demand
from policyserver.server.external_env.calls import EnvironmentCall
from policyserver.server.external_env.policy_server import PolicyServer
from tests.server.core_harness import ACTION, OBSERVATION, observation
from tests.server.external_env_harness import Idle, Served, in_thread, play, serving_env
from tests.server.serving_loop_harness import CLIENT


class Stuck:
    """Makes a policy that answers nothing until it is released, or raises."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.released = threading.Event(), threading.Event()
        self.failing = False
        decide = served.harness.policy.decide

        def slow(rows: Any) -> Any:
            self.asked.set()
            assert self.released.wait(60.0)
            if self.failing:
                raise ArithmeticError("the module is broken")
            return decide(rows)

        monkeypatch.setattr(served.harness.policy, "decide", slow)


@pytest.fixture
def stuck(served: Served, monkeypatch: pytest.MonkeyPatch) -> Stuck:
    return Stuck(served, monkeypatch)


def give_up(env: Any, episode_id: str, values: Any, action: Any = None) -> None:
    """Ask for an action, or log one, with little patience."""
    env.action_timeout_s = 0.05
    with pytest.raises(ActionTimeoutError, match=r"no action within 0\.05 s") as raised:
        env.get_action(episode_id, values) if action is None else env.log_action(episode_id, values, action)
    del env.action_timeout_s
    assert isinstance(raised.value, queue.Empty), "what RLlib raises, for programs that expect it"


@pytest.mark.long
def test_a_late_action_is_not_the_answer_to_the_next_call(served: Served, env: Any, stuck: Stuck) -> None:
    episode = env.start_episode()
    give_up(env, episode, observation(0))
    env.log_returns(episode, 1.0)
    answer = in_thread(env.get_action, episode, observation(1))
    stuck.released.set()
    second = answer()
    env.log_returns(episode, 2.0)
    env.end_episode(episode, observation(2))
    (segment,) = served.segments()
    assert segment.get_observations()[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert segment.get_actions()[1] == second
    assert segment.get_rewards().tolist() == [1.0, 2.0]


@pytest.mark.long
@pytest.mark.parametrize("is_first_step", [True, False])
@pytest.mark.parametrize("answered_before", [True, False])
def test_to_ask_again_after_a_timeout_gives_the_same_action_and_counts_once(
    served: Served, env: Any, stuck: Stuck, is_first_step: bool, answered_before: bool
) -> None:
    episode = env.start_episode()
    if not is_first_step:
        stuck.released.set()
        env.get_action(episode, observation(7))
        env.log_returns(episode, 0.5, {"a": 1})
        stuck.released.clear()
    give_up(env, episode, observation(0))
    env.log_returns(episode, 1.0, {"b": 2})
    if answered_before:
        stuck.released.set()
        served.settle()
    answer = in_thread(env.get_action, episode, observation(0))
    stuck.released.set()
    action = answer()
    env.log_returns(episode, 2.0)
    env.end_episode(episode, observation(1))
    (segment,) = served.segments()
    before = [] if is_first_step else [0.5]
    assert segment.get_observations()[-2:, 0].tolist() == [0.0, 1.0]
    assert segment.get_actions()[-1] == action
    assert segment.get_rewards().tolist() == [*before, 3.0], "what was logged meanwhile belongs to the action that is asked for again"
    assert segment.get_infos()[-1] == {"b": 2}
    assert served.statistics().rows_repeated == 1


@pytest.mark.long
def test_to_log_an_action_after_a_timeout_replaces_the_policys(served: Served, env: Any, stuck: Stuck) -> None:
    episode = env.start_episode()
    give_up(env, episode, observation(0))
    stuck.released.set()
    served.settle()
    env.log_action(episode, observation(0), 2)
    env.log_returns(episode, 1.0)
    give_up_free = env.get_action(episode, observation(1))
    assert give_up_free in ACTION
    env.log_returns(episode, 1.0)
    stuck.released.clear()
    give_up(env, episode, observation(2), action=1)
    stuck.released.set()
    served.settle()
    env.log_action(episode, observation(2), 0)
    env.log_action(episode, observation(2), 1)  # not a repeat: the one before was heard
    env.end_episode(episode, observation(3))
    (segment,) = served.segments()
    assert segment.get_actions().tolist() == [2, give_up_free, 0, 1]
    assert served.statistics().actions_overridden == 2


@pytest.mark.long
def test_an_end_that_the_server_could_not_take_is_not_lost(
    served: Served, env: Any, stuck: Stuck, caplog: pytest.LogCaptureFixture
) -> None:
    stuck.released.set()
    episode = env.start_episode()
    env.get_action(episode, observation(0))
    env.log_returns(episode, 1.0)
    stuck.failing = True
    stuck.asked.clear()
    env.end_episode(episode, observation(1))
    assert stuck.asked.wait(60.0)
    served.settle()
    assert served.statistics().rows_failed == 1
    stuck.failing = False
    (segment,) = served.segments()
    assert segment.is_terminated
    assert "the module is broken" in caplog.text


@pytest.mark.long
def test_callers_wait_for_the_learner_longer_than_for_an_answer_and_ends_pass(
    wait_until: Callable[[Callable[[], bool]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, settle = EnvironmentCall.wait, EnvironmentCall.settle

    def wait_once_it_is_withheld(call: EnvironmentCall, timeout_s: float) -> Any:
        wait_until(lambda: call.waits_for_learner)
        return wait(call, timeout_s)

    def settle_late(call: EnvironmentCall, outcome: Any) -> None:
        time.sleep(0.3)  # the loop's thread may have to wait for a processor just here
        settle(call, outcome)

    with serving_env(demand=Demand(fragment_steps=2)) as served:
        env = served.env
        ending = env.start_episode()
        env.get_action(ending, observation(0))
        play(env, 2)
        served.settle()
        waiting = env.start_episode()
        env.action_timeout_s = 0.1
        monkeypatch.setattr(EnvironmentCall, "wait", wait_once_it_is_withheld)
        answer = in_thread(env.get_action, waiting, observation(0))
        wait_until(lambda: served.statistics().questions_waiting == 1)
        env.end_episode(ending, observation(1))
        wait_until(lambda: served.open_episodes == [waiting])
        monkeypatch.setattr(EnvironmentCall, "settle", settle_late)
        time.sleep(0.3)  # more than a caller waits for an answer
        assert sum(len(segment) for segment in served.harness.batch(2)) >= 2
        served.harness.serving_loop.serve_weights(1)
        assert answer() in ACTION


def test_a_mistake_of_the_server_is_told_to_the_callers_and_counted(served: Served, env: Any, stuck: Stuck) -> None:
    stuck.released.set()
    stuck.failing = True
    episode = env.start_episode()
    with pytest.raises(ServerInternalError, match="incident"):
        env.get_action(episode, observation(0))
    stuck.failing = False
    env.get_action(episode, observation(0))
    env.end_episode(episode, observation(1))
    assert len(served.segments()) == 1
    assert served.statistics().rows_failed == 1


@pytest.mark.long
def test_whoever_waits_when_the_server_stops_hears_it(wait_until: Callable[[Callable[[], bool]], None]) -> None:
    with serving_env(demand=Demand(fragment_steps=1)) as served:
        env = served.env
        play(env, 1)
        served.settle()
        episodes = [env.start_episode() for _ in range(4)]
        answers = [in_thread(env.get_action, episode, observation()) for episode in episodes]
        wait_until(lambda: served.statistics().questions_waiting == 4)
        served.harness.serving_loop.stop()
        for answer in answers:
            with pytest.raises(ServerUnavailableError, match="shutting down"):
                answer()
        for call in (
            env.start_episode,
            lambda: env.get_action(episodes[0], observation()),
            lambda: env.log_action(episodes[0], observation(), 1),
            lambda: env.end_episode(episodes[0], observation()),
        ):
            with pytest.raises(ServerUnavailableError, match="shutting down"):
                call()
        assert served.thread.failure is None, "the environment is not to blame"


class Finite(ExternalEnv):  # type: ignore[misc]
    """Plays some episodes, leaves one open, and is done; another thread goes on with a last one for as long as it may."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__(ACTION, OBSERVATION)
        self.error = error
        self.helper_heard: list[BaseException] = []
        self.helper = threading.Thread(target=self.help, daemon=True)

    def run(self) -> None:
        self.helper.start()
        for _ in range(10):
            play(self, 3)
        open_ = self.start_episode()
        for step in range(3):
            self.get_action(open_, observation(step))
            self.log_returns(open_, 1.0)
        if self.error is not None:
            raise self.error

    def help(self) -> None:
        try:
            untrained = self.start_episode(training_enabled=False)
            while True:
                self.get_action(untrained, observation())
        except Exception as error:
            self.helper_heard.append(error)


@pytest.mark.long
@pytest.mark.parametrize("error", [None, OSError("the plant is on fire"), SystemExit(3)], ids=str)
def test_when_run_is_over_everything_said_before_is_handed_off_and_the_training_hears_it(error: BaseException | None) -> None:
    with serving_env(lambda: Finite(error)) as served:
        env = served.env
        env.join(60.0)
        env.helper.join(60.0)
        assert isinstance(env.helper_heard[0], ServerUnavailableError)
        assert "run() of the environment is over" in str(env.helper_heard[0])
        segments = served.segments(32)
        assert sorted((len(segment), segment.is_terminated, segment.is_truncated) for segment in segments) == sorted(
            [(3, True, False)] * 10 + [(2, False, True)]
        )
        assert served.thread.failure is not None
        assert served.thread.failure.__cause__ is error
        assert ("failed" if error else "returned") in str(served.thread.failure)
        assert served.statistics().episodes_open == 0


class Eager(Idle):
    """Has threads that play before anybody serves it, and has ended an episode by then."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = [in_thread(play, self, 3) for _ in range(8)]
        self.end_episode(self.start_episode(), observation())


@pytest.mark.long
def test_episodes_that_began_before_the_server_did_are_served(caplog: pytest.LogCaptureFixture) -> None:
    with serving_env(Eager) as served:
        for answer in served.env.answers:
            answer()
        assert sorted(len(segment) for segment in served.segments(24)) == [3] * 8
        served.settle()
        assert served.open_episodes == []


class Both(Idle):
    def run(self) -> None:
        self.own = in_thread(play, self, 3)
        PolicyServer(self, "localhost", 0).serve_forever()


@pytest.mark.long
def test_an_environment_may_play_itself_and_serve_clients(wait_until: Callable[[Callable[[], bool]], None]) -> None:
    with serving_env(Both) as served:
        wait_until(lambda: len(served.harness.serving_loop.addresses) == 2)
        served.env.own()
        with PolicyClient(served.harness.serving_loop.addresses[-1], config=CLIENT) as client:
            play(client, 4)
        assert sorted(len(segment) for segment in served.segments(7)) == [3, 4]
    assert served.thread.failure is None
