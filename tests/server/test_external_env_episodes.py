"""Calls of an ExternalEnv in this process arrive at the learner as they were said, and its callers hear what went wrong."""

from __future__ import annotations

import inspect
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env import external_env
from ray.rllib.env.external_env import ExternalEnv, _ExternalEnvEpisode

from client import PolicyClient
from policyserver.errors import (
    ActionTimeoutError,
    EpisodeFinishedError,
    InvalidInputError,
    ServerInternalError,
    ServerOverloadedError,
    ServerUnavailableError,
)
from policyserver.spaces import flatten
from server.config import EpisodesConfig, HandOffConfig, ServingConfig
from server.core import EpisodeCore
from server.external_env_episodes import columns_of
from server.external_env_hooks import FinishedIds
from server.front import Front
from server.policy_server import PolicyServer
from tests.server.core_harness import ACTION, ACTIONS, OBSERVATION, arrived, module_of, observation, policy_of
from tests.server.external_env_harness import Idle, Served, in_thread, serve_env, serving_env
from tests.server.front_harness import CLIENT

BAD = observation(np.nan)


@pytest.fixture
def served() -> Iterator[Served]:
    with serving_env() as served:
        yield served


@pytest.fixture
def env(served: Served) -> Any:
    return served.env


def play(env: Any, steps: int) -> str:
    episode: str = env.start_episode()
    for step in range(steps):
        assert env.get_action(episode, observation(step)) in ACTION
        env.log_returns(episode, 1.0)
    env.end_episode(episode, observation(steps))
    return episode


# What arrives ------------------------------------------------------------------------------------------------------------------------


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
    assert env._episodes == {}
    assert served.statistics().episodes_open == 0
    assert {episode in env._finished for episode in (7, generated)} == {True}


def test_the_ids_of_ended_episodes_are_remembered_within_bounds(env: Any) -> None:
    episodes = [play(env, 1) for _ in range(102)]
    assert len(env._finished) == 100
    assert (episodes[1] in env._finished, episodes[2] in env._finished) == (False, True)
    assert 5 not in FinishedIds([5], 0)
    assert list(FinishedIds(range(5), 3)._ids) == [2, 3, 4]


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


class Changeable:
    pass


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
    front = Front(lambda: EpisodeCore(policy, OBSERVATION, space, EpisodesConfig(64), HandOffConfig()), OBSERVATION, space, ServingConfig())
    front.start()
    env = ExternalEnv(space, OBSERVATION)
    serve_env(env, front)
    try:
        episode = env.start_episode()
        action = env.get_action(episode, observation(0))
        assert action.dtype == np.float32
        assert action in space
        given = np.array([1.5, 9.0], np.float32)
        env.log_action(episode, observation(1), given)
        env.end_episode(episode, observation(2))
        (segment,) = arrived(front.sample(2, 10.0))
    finally:
        front.stop()
    assert segment.get_actions()[1] == pytest.approx([0.75, 0.8]), "the module's form is from -1 to 1"


# What is refused ---------------------------------------------------------------------------------------------------------------------


class Unreadable:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("burnt")


@pytest.mark.parametrize(
    "bad",
    [BAD, observation(101.0), np.zeros(9, np.float32), None, "text", [1, [2]], np.full(10, 1e300), {"x": 1}, Unreadable(), 1j],
    ids=str,
)
def test_a_bad_observation_is_told_to_its_caller_and_the_episode_goes_on(served: Served, env: Any, bad: Any) -> None:
    episode = env.start_episode()
    with pytest.raises(InvalidInputError, match="observation"):
        env.get_action(episode, bad)
    env.get_action(episode, observation(0))
    env.log_returns(episode, 1.0, {"kept": True})
    with pytest.raises(InvalidInputError, match="observation") as raised:
        env.log_action(episode, bad, 1)
    assert raised.value.reason == "BAD_OBSERVATION"
    env.log_returns(episode, 2.0)
    env.get_action(episode, observation(1))
    env.end_episode(episode, observation(2))
    (segment,) = served.segments()
    assert segment.get_observations()[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert segment.get_rewards().tolist() == [3.0, 0.0], "the refused call's reward goes with the next"
    assert segment.get_infos() == [{}, {"kept": True}, {}]


@pytest.mark.parametrize("bad", [42, -1, np.nan, 0.5, "up", [0, 1], Unreadable()], ids=str)
def test_an_action_outside_the_space_is_told_to_its_caller_and_the_episode_goes_on(served: Served, env: Any, bad: Any) -> None:
    episode = env.start_episode()
    env.log_action(episode, observation(0), 1)
    env.log_returns(episode, 1.0)
    with pytest.raises(InvalidInputError, match="action") as raised:
        env.log_action(episode, observation(1), bad)
    assert raised.value.reason == "BAD_ACTION"
    env.log_action(episode, observation(1), 2)
    env.end_episode(episode, observation(2))
    (segment,) = served.segments()
    assert segment.get_actions().tolist() == [1, 2]
    assert segment.get_rewards().tolist() == [1.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, "much", None, np.zeros(2), 10**400], ids=str)
def test_a_reward_that_is_no_number_is_told_at_the_next_call_and_forgotten(served: Served, env: Any, bad: Any) -> None:
    episode = env.start_episode()
    env.get_action(episode, observation(0))
    env._episodes[episode].cur_reward = bad  # what `+=` leaves there
    with pytest.raises(InvalidInputError, match="reward") as raised:
        env.get_action(episode, observation(1))
    assert raised.value.reason == "BAD_REWARD"
    env.log_returns(episode, np.float32(1.5))
    env.get_action(episode, observation(1))
    env.log_returns(episode, np.ones((1, 1)))
    env.end_episode(episode, observation(2))
    (segment,) = served.segments()
    assert segment.get_rewards().tolist() == [1.5, 1.0]


def test_a_bad_row_in_a_crowd_touches_no_other(served: Served, env: Any) -> None:
    def drive(number: int) -> int:
        random = np.random.default_rng(number)
        refused = 0
        for _ in range(10):
            episode = env.start_episode()
            for step in range(5):
                if random.random() < 0.3:
                    with pytest.raises(InvalidInputError):
                        env.get_action(episode, BAD) if step % 2 else env.log_action(episode, observation(step), 42)
                    refused += 1
                env.get_action(episode, observation(number, step))
                env.log_returns(episode, 1.0)
            env.end_episode(episode, observation(number, 5))
        return refused

    refused = sum(result() for result in [in_thread(drive, number) for number in range(16)])
    assert refused > 100
    segments = served.segments(800)
    assert len(segments) == 160
    for segment in segments:
        assert segment.get_observations()[:, 1].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert segment.get_rewards().tolist() == [1.0] * 5


@pytest.mark.parametrize(("last", "reward"), [(BAD, 1.0), (None, 1.0), (threading.Lock(), 1.0), (observation(3), np.nan)], ids=str)
def test_a_bad_end_truncates_the_episode_at_its_last_complete_step(
    served: Served, env: Any, caplog: pytest.LogCaptureFixture, last: Any, reward: float
) -> None:
    episode = env.start_episode()
    for step in range(3):
        env.get_action(episode, observation(step))
        env.log_returns(episode, 1.0 if step < 2 else reward)
    env.end_episode(episode, last)
    (segment,) = served.segments()
    assert segment.get_observations()[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert segment.is_truncated
    assert not segment.is_terminated
    assert f"the end of episode {episode} is refused: it ends as truncated" in caplog.text
    with pytest.raises(ValueError, match="already completed"):
        env.get_action(episode, observation())
    assert env._episodes == {}


def test_the_number_of_open_episodes_is_bounded_and_the_caller_hears_it() -> None:
    with serving_env(episodes=EpisodesConfig(max_open=2)) as served:
        env = served.env
        first, second, third = (env.start_episode() for _ in range(3))
        for episode in (first, second):
            env.get_action(episode, observation())
        with pytest.raises(ServerOverloadedError, match="at most 2 open episodes"):
            env.get_action(third, observation())
        env.end_episode(first, observation(1))
        served.settle()
        env.get_action(third, observation())


# Time --------------------------------------------------------------------------------------------------------------------------------


class Stuck:
    """Makes a policy that answers nothing until it is released, or raises."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.released = threading.Event(), threading.Event()
        self.failing = False
        decide = served.harness.policy.decide

        def slow(rows: Any) -> Any:
            self.asked.set()
            assert self.released.wait(20.0)
            if self.failing:
                raise ArithmeticError("the module is broken")
            return decide(rows)

        monkeypatch.setattr(served.harness.policy, "decide", slow)


@pytest.fixture
def stuck(served: Served, monkeypatch: pytest.MonkeyPatch) -> Stuck:
    return Stuck(served, monkeypatch)


def give_up(env: Any, episode_id: str, values: Any, action: Any = None) -> None:
    """Ask for an action, as RLlib's episode does, but with less patience."""
    episode = env._episodes[episode_id]
    episode.new_observation, episode.new_action = values, action
    episode._send()
    with pytest.raises(ActionTimeoutError, match=r"no action within 0\.05 s") as raised:
        episode.action_queue.get(True, timeout=0.05)
    assert isinstance(raised.value, queue.Empty), "what RLlib raises, for programs that expect it"


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
    assert stuck.asked.wait(10.0)
    served.settle()
    assert served.statistics().rows_failed == 1
    stuck.failing = False
    (segment,) = served.segments()
    assert segment.is_terminated
    assert "the module is broken" in caplog.text


def test_with_block_callers_wait_for_the_learner_and_ends_pass(wait_until: Callable[[Callable[[], bool]], None]) -> None:
    with serving_env(hand_off=HandOffConfig(segment_steps=2, capacity_steps=2, overflow="block")) as served:
        env = served.env
        ending = env.start_episode()
        env.get_action(ending, observation(0))
        play(env, 2)
        served.settle()
        waiting = env.start_episode()
        answer = in_thread(env.get_action, waiting, observation(0))
        wait_until(lambda: served.statistics().rows_withheld == 1)
        env.end_episode(ending, observation(1))
        wait_until(lambda: env._episodes.keys() == {waiting})
        assert sum(len(segment) for segment in served.segments(2)) >= 2
        assert answer() in ACTION


# The end -----------------------------------------------------------------------------------------------------------------------------


def test_whoever_waits_when_the_server_stops_hears_it(wait_until: Callable[[Callable[[], bool]], None]) -> None:
    with serving_env(hand_off=HandOffConfig(segment_steps=1, capacity_steps=1, overflow="block")) as served:
        env = served.env
        play(env, 1)
        served.settle()
        episodes = [env.start_episode() for _ in range(4)]
        answers = [in_thread(env.get_action, episode, observation()) for episode in episodes]
        wait_until(lambda: served.statistics().rows_withheld == 4)
        served.harness.front.stop()
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
        untrained = self.start_episode(training_enabled=False)
        try:
            while True:
                self.get_action(untrained, observation())
        except Exception as error:
            self.helper_heard.append(error)


@pytest.mark.parametrize("error", [None, OSError("the plant is on fire"), SystemExit(3)], ids=str)
def test_when_run_is_over_everything_said_before_is_handed_over_and_the_training_hears_it(error: BaseException | None) -> None:
    with serving_env(Finite(error)) as served:
        env = served.env
        env.join(10.0)
        env.helper.join(10.0)
        assert isinstance(env.helper_heard[0], ServerUnavailableError)
        assert "run() of the environment is over" in str(env.helper_heard[0])
        segments: list[Any] = []
        while more := served.segments(4000):
            segments += more
        assert sorted((len(segment), segment.is_terminated, segment.is_truncated) for segment in segments) == sorted(
            [(3, True, False)] * 10 + [(2, False, True)]
        )
        assert served.thread.failure is not None
        assert served.thread.failure.__cause__ is error
        assert ("failed" if error else "returned") in str(served.thread.failure)
        assert served.statistics().episodes_open == 0


class Eager(Idle):
    """Has threads that play before anybody serves it."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = [in_thread(play, self, 3) for _ in range(8)]
        self.ended = self.start_episode()
        while sum(not episode.data_queue.empty() for episode in self._episodes.values()) < 8:
            time.sleep(0.005)
        self.end_episode(self.ended, observation())


def test_episodes_that_began_before_the_server_did_are_served(caplog: pytest.LogCaptureFixture) -> None:
    with serving_env(Eager()) as served:
        for answer in served.env.answers:
            answer()
        assert sorted(len(segment) for segment in served.segments(24)) == [3] * 8
        served.settle()
        assert served.env._episodes == {}


class Both(Idle):
    def run(self) -> None:
        self.own = in_thread(play, self, 3)
        PolicyServer(self, "localhost", 0).serve_forever()


def test_an_environment_may_play_itself_and_serve_clients(wait_until: Callable[[Callable[[], bool]], None]) -> None:
    with serving_env(Both()) as served:
        wait_until(lambda: len(served.harness.front.addresses) == 2)
        served.env.own()
        with PolicyClient(served.harness.front.addresses[-1], config=CLIENT) as client:
            play(client, 4)
        assert sorted(len(segment) for segment in served.segments(7)) == [3, 4]
    assert served.thread.failure is None


# Many --------------------------------------------------------------------------------------------------------------------------------

THREADS, OPEN = 64, 10_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("steps", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_of_ten_thousand_open_episodes_no_step_and_no_end_is_lost(steps: int) -> None:
    episodes = EpisodesConfig(max_open=OPEN)
    with serving_env(episodes=episodes, hand_off=HandOffConfig(capacity_steps=OPEN * steps)) as served:
        env = served.env
        all_open = threading.Barrier(THREADS)

        def drive(numbers: range) -> None:
            mine = {number: env.start_episode() for number in numbers}
            for step in range(steps):
                for number, episode in mine.items():
                    env.get_action(episode, observation(number % 100, number // 100))
                    env.log_returns(episode, float(number))
                if step == 0:
                    all_open.wait(60.0)
            for number, episode in mine.items():
                env.end_episode(episode, observation(number % 100, number // 100))

        began = time.monotonic()
        for result in [in_thread(drive, range(first, OPEN, THREADS)) for first in range(THREADS)]:
            result()
        seconds = time.monotonic() - began
        logging.getLogger(__name__).info("%d steps of %d open episodes in %.1f s", OPEN * steps, OPEN, seconds)
        segments = served.segments(OPEN * steps)
        assert len(segments) == OPEN
        numbers = set()
        for segment in segments:
            low, high = segment.get_observations(0)[:2]
            number = int(high * 100 + low)
            numbers.add(number)
            assert segment.is_terminated
            assert segment.get_rewards().tolist() == [number] * steps
        assert len(numbers) == OPEN
        served.settle()
        assert env._episodes == {}
        statistics = served.statistics()
        assert (statistics.episodes_open, statistics.episodes_finished, statistics.steps_dropped) == (0, OPEN, 0)


# What it relies on -------------------------------------------------------------------------------------------------------------------


def test_a_column_is_made_of_the_values_that_fit() -> None:
    space = gym.spaces.Dict(
        {"a": gym.spaces.Box(-1.0, 1.0, (2,)), "b": gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.MultiBinary(2)])}
    )
    good = [space.sample() for _ in range(5)]
    together, errors = columns_of(space, "observation", good)
    assert not errors
    for column, *leaves in zip(together, *(flatten(space, value) for value in good), strict=True):
        np.testing.assert_array_equal(column, np.stack(leaves))
        assert column.dtype == leaves[0].dtype
    bad = [{}, {**good[0], "c": 1}, {"a": good[0]["a"], "b": (1,)}, {"a": good[0]["a"], "b": (0.5, good[0]["b"][1])}, Unreadable(), None]
    mixed = [good[0], *bad[:3], good[1], *bad[3:], good[2]]
    some, errors = columns_of(space, "observation", mixed)
    assert set(errors) == {1, 2, 3, 5, 6, 7}
    for column, whole in zip(some, together, strict=True):
        np.testing.assert_array_equal(column, whole[:3])
    assert columns_of(space, "observation", bad)[0] == []
    assert columns_of(space, "observation", []) == ([], {})


def test_rllibs_private_names_that_the_adapter_replaces_are_there() -> None:
    env: Any = ExternalEnv(ACTION, OBSERVATION)
    assert type(env._episodes) is dict
    assert type(env._finished) is set
    assert issubclass(ExternalEnv, threading.Thread)
    assert env.daemon
    env.start_episode("a", training_enabled=False)
    episode = env._episodes["a"]
    assert isinstance(episode, _ExternalEnvEpisode)
    assert (episode.episode_id, episode.training_enabled, episode.cur_reward, episode.cur_info) == ("a", False, 0.0, {})
    assert episode.results_avail_condition is env._results_avail_condition
    assert isinstance(episode.data_queue, queue.Queue)
    assert isinstance(episode.action_queue, queue.Queue)

    class Recorder:
        def __init__(self) -> None:
            self.calls: list[tuple[str, Any]] = []

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **options: self.calls.append((name, options or args))

    data, actions = Recorder(), Recorder()
    episode.data_queue, episode.action_queue = data, actions
    episode.training_enabled = True
    env.get_action("a", "first")
    env.log_returns("a", 1.0, {"i": 1})
    env.log_action("a", "second", 5)
    env.end_episode("a", "third")
    common = {"truncated": False, "terminated": False}
    expected = [
        {"obs": "first", "reward": 0.0, "info": {}, **common},
        {"obs": "second", "reward": 1.0, "info": {"i": 1}, "off_policy_action": 5, **common},
        {"obs": "third", "reward": 0.0, "info": {"i": 1}, **common, "terminated": True},
    ]
    assert data.calls == [("put_nowait", (item,)) for item in expected]
    assert actions.calls == [("get", {"timeout": 300.0}), ("get", {"timeout": 60.0})]
    assert "a" in env._finished
    assert "a" in env._episodes, "ending removes nothing: whoever drives the environment does"
    assert "self._episodes[episode_id] = _ExternalEnvEpisode(" in inspect.getsource(external_env.ExternalEnv.start_episode)


def test_a_call_after_the_end_of_a_forgotten_episode_is_refused(served: Served, env: Any) -> None:
    env._finished._capacity = 0
    episode_id = env.start_episode()
    env.get_action(episode_id, observation(0))
    episode = env._episodes[episode_id]
    env.end_episode(episode_id, observation(1))
    with pytest.raises(EpisodeFinishedError):
        episode.wait_for_action(observation(2))
    assert len(served.segments()) == 1


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
