"""Each episode that ends waits, once, to be recorded: whose it was, how it ended, its return, length, time and policy version."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig
from policyserver.server.episodes import ended_episodes
from tests.server.core_harness import CoreHarness, Row, observation, start

Make = Callable[..., CoreHarness]


def play(harness: CoreHarness, steps: int, last: StepFlag, name: str = "a", flags: int = 0) -> None:
    handle = harness.one(start(name, observation(0), flags=flags)).handle
    for number in range(1, steps):
        harness.one(Row(handle, number, reward=float(number), observation=observation(number)))
    harness.one(Row(handle, steps, flags=last, reward=0.5, observation=observation(steps)))


def test_an_episode_says_how_it_ended_and_what_it_earned(make_harness: Make) -> None:
    harness = make_harness()
    play(harness, 3, StepFlag.TERMINATED)
    play(harness, 1, StepFlag.TRUNCATED, "b", int(StepFlag.TRAINING_DISABLED))
    (first, second), missing = harness.core.ended.take()
    assert (first.client, first.episode, first.return_, first.length, first.ended) == ("client", "a", 3.5, 3, "terminated")
    assert (second.episode, second.return_, second.length, second.ended, second.trained) == ("b", 0.5, 1, "truncated", False)
    assert first.trained
    assert first.seconds >= 0.0
    assert first.weights_seq_no == harness.core.snapshot().weights_seq_no
    assert missing == 0
    assert harness.core.ended.take() == ([], 0)


def test_an_episode_whose_client_is_gone_is_lost_and_one_without_a_step_leaves_no_trace(make_harness: Make) -> None:
    harness = make_harness(episodes=EpisodesConfig(max_open=8, episode_idle_timeout_s=60.0))
    handle = harness.one(start("a", observation(0))).handle
    harness.one(Row(handle, 1, reward=2.0, observation=observation(1)))
    harness.one(start("b", observation(0)))
    harness.disconnect(harness.client)
    harness.advance(60.0)
    (lost,), _ = harness.core.ended.take()
    assert (lost.episode, lost.return_, lost.length, lost.ended) == ("a", 2.0, 1, "lost")


def test_one_that_ends_while_learning_is_paused_is_not_trained_on(make_harness: Make) -> None:
    harness = make_harness()
    harness.on_loop(lambda: harness.core.pause_learning(True))
    play(harness, 2, StepFlag.TERMINATED)
    harness.on_loop(lambda: harness.core.pause_learning(False))
    play(harness, 2, StepFlag.TERMINATED, "b")
    ended, _ = harness.core.ended.take()
    assert [(each.episode, each.length, each.trained) for each in ended] == [("a", 2, False), ("b", 2, True)]


def test_of_too_many_the_oldest_are_dropped_and_counted(make_harness: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_episodes, "MOST_WAITING", 2)
    harness = make_harness()
    for name in "abc":
        play(harness, 1, StepFlag.TERMINATED, name)
    ended, missing = harness.core.ended.take()
    assert ([each.episode for each in ended], missing) == (["b", "c"], 1)
    play(harness, 1, StepFlag.TERMINATED, "d")
    assert harness.core.ended.take()[1] == 0


def test_it_says_where_its_client_records_it(make_harness: Make) -> None:
    harness = make_harness()
    harness.on_loop(lambda: harness.core.connect("client", None, ("store-1", "influx")))
    play(harness, 1, StepFlag.TERMINATED)
    assert harness.core.ended.take()[0][0].records_in == ("store-1", "influx")


def test_actions_of_the_clients_own_are_counted_each_once(make_harness: Make) -> None:
    harness = make_harness()
    given, overridden = int(StepFlag.ACTION_GIVEN), int(StepFlag.ACTION_GIVEN | StepFlag.OVERRIDE)
    handle = harness.one(start("a", observation(0))).handle
    harness.one(Row(handle, 1, flags=given, observation=observation(1), action=2))
    harness.one(Row(handle, 1, flags=overridden, observation=observation(1), action=1))
    harness.one(Row(handle, 2, observation=observation(2)))
    harness.one(Row(handle, 2, flags=overridden, observation=observation(2), action=0))
    harness.one(Row(handle, 3, observation=observation(3)))
    harness.one(Row(handle, 4, flags=StepFlag.TERMINATED, observation=observation(4)))
    (ended,), _ = harness.core.ended.take()
    assert (ended.length, ended.given, ended.overridden) == (4, 2, 2)
    statistics = harness.core.snapshot()
    assert (statistics.actions_given, statistics.actions_overridden) == (2, 2)
