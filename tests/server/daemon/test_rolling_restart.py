"""A rolling restart of two actors with real clients: what is lost, which is nothing where all goes well, and what is said of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from policyserver.client import EpisodeLostError, PolicyClient
from policyserver.server.daemon import rolling_restart
from policyserver.server.daemon.rolling_restart import RestartError, RollingRestart
from policyserver.server.processes.retirement_state import RetirementOrder, RetirementState
from tests.server.core_harness import observation
from tests.server.daemon.restart_harness import Learner
from tests.server.serving_loop_harness import CLIENT
from tests.services import wait_until

pytestmark = pytest.mark.long


@pytest.fixture
def learner(tmp_path: Path) -> Iterator[Learner]:
    made = Learner(tmp_path)
    yield made
    made.close()


def test_episodes_that_end_in_time_lose_nothing(learner: Learner) -> None:
    boots = {actor.loop.boot_id for actor in learner.actors.values()}
    over, failures = threading.Event(), list[BaseException]()
    ledger: dict[str, int] = {}
    with PolicyClient(learner.address, config=CLIENT) as client:

        def play() -> None:
            try:
                while not over.is_set():
                    episode = client.start_episode()
                    for number in range(5):
                        client.get_action(episode, observation(number))
                        client.log_returns(episode, 1.0)
                        time.sleep(0.01)
                    client.end_episode(episode, observation(9))
                    ledger[episode] = 5
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=play) for _ in range(4)]
        for thread in threads:
            thread.start()
        replaced = learner.restart(60.0)
        over.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert client.counters().episodes_lost == 0
        assert [(each.number, each.episodes_cut) for each in replaced] == [(1, 0), (2, 0)]
        assert learner.replaced == [(1, True), (2, True)]
        assert not boots & {actor.loop.boot_id for actor in learner.actors.values()}
        until_s = time.monotonic() + 60.0
        while learner.steps < sum(ledger.values()) and time.monotonic() < until_s:
            time.sleep(0.05)
        assert (learner.steps, learner.rewards) == (sum(ledger.values()), sum(ledger.values()))
        while len(learner.ended) < len(ledger) and time.monotonic() < until_s:
            time.sleep(0.05)
        assert sorted(learner.ended) == sorted(ledger)


def test_an_episode_that_does_not_end_is_cut_and_what_it_was_answered_is_recorded(learner: Learner) -> None:
    with PolicyClient(learner.address, config=CLIENT) as client:
        episodes = client.start_episodes(2)
        for _ in range(3):
            client.get_actions(episodes, [observation(), observation()])
            client.log_returns_batch(episodes, [1.0, 1.0])
        client.get_actions(episodes, [observation(), observation()])  # so that the last rewards have arrived
        replaced = learner.restart(0.3)
        assert [(each.number, each.episodes_cut) for each in replaced] == [(1, 1), (2, 1)]
        for episode in episodes:
            with pytest.raises(EpisodeLostError):
                client.get_action(episode, observation())
        assert (learner.steps, learner.rewards) == (6, 6.0)
        assert client.get_action(client.start_episode(), observation()) in range(3)


def test_a_server_that_stops_leaves_the_restart_and_says_at_which_actor(learner: Learner) -> None:
    with PolicyClient(learner.address, config=CLIENT) as client:
        client.get_actions(client.start_episodes(2), [observation(), observation()])
        with pytest.raises(RestartError, match="actor 1: the server stops"):
            learner.restart(60.0, lambda seconds: True)
    assert learner.replaced == [(1, False)], "which was given up"


def test_without_actors_there_is_nothing_to_restart() -> None:
    with pytest.raises(RestartError, match="expected serving actors"):
        RollingRestart(lambda order: [], Scripted(), lambda seconds: False).run(1.0)


def test_steps_that_the_learner_does_not_take_in_time_are_given_up_and_counted(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling_restart, "HAND_OFF_S", 0.5)
    boots = {number: actor.loop.boot_id for number, actor in learner.actors.items()}
    learner.take_no_more()
    with PolicyClient(learner.address, config=CLIENT) as client:
        episodes = client.start_episodes(2)
        for _ in range(3):
            client.get_actions(episodes, [observation(), observation()])
        with pytest.raises(
            RestartError, match=r"actor 1: the learner has not taken its steps within 0\.5 s, .* with 2 steps that are lost"
        ):
            learner.restart(0.1)
        wait_until(lambda: learner.actors[1].loop.boot_id != boots[1], "the successor")
        assert learner.actors[2].loop.boot_id == boots[2]
        assert client.get_action(client.start_episode(), observation()) in range(3)


def test_a_pause_in_the_hand_off_ends_the_actor_rather_than_have_it_serve_nothing(learner: Learner) -> None:
    learner.take_no_more()
    with PolicyClient(learner.address, config=CLIENT) as client:
        episodes = client.start_episodes(2)
        for _ in range(3):
            client.get_actions(episodes, [observation(), observation()])

        def wait(_: float) -> bool:
            time.sleep(0.02)
            learner.is_paused = learner.actors[1].loop.core.episodes_open == 0
            return False

        with pytest.raises(RestartError, match=r"actor 1: learning is paused, so it was ended with 2 steps .* its successor serves"):
            learner.restart(0.1, wait)
        assert learner.replaced == [(1, True), (1, False)]
        assert client.get_action(client.start_episode(), observation()) in range(3)


def test_a_pause_of_learning_leaves_the_actor_that_drains_as_it_was(learner: Learner) -> None:
    boots = [actor.loop.boot_id for actor in learner.actors.values()]
    with PolicyClient(learner.address, config=CLIENT) as client:
        episodes = client.start_episodes(2)
        client.get_actions(episodes, [observation(), observation()])

        def wait(_: float) -> bool:
            time.sleep(0.02)
            learner.is_paused = learner.actors[1].loop.core.drain_error is not None
            return False

        with pytest.raises(RestartError, match="actor 1: learning is paused, so it goes on as before"):
            learner.restart(60.0, wait)
        client.get_actions(episodes, [observation(), observation()])
    assert [actor.loop.boot_id for actor in learner.actors.values()] == boots
    assert [actor.loop.core.drain_error for actor in learner.actors.values()] == [None, None]


class Scripted:
    """One actor that answers as a real one does, and dies or falls silent when it is told to."""

    def __init__(self) -> None:
        self.boot_id, self.asked, self.obeyed = "old", 0, list[tuple[str, str]]()
        self.said: list[str] = []
        self.before: Callable[[int], None] = lambda asked: None
        self.is_gone = False

    def ask(self, order: RetirementOrder) -> list[RetirementState]:
        self.asked += 1
        self.before(self.asked)
        if order.phase and order.boot_id in ("", self.boot_id):
            self.obeyed.append((self.boot_id, order.phase))
        return [] if self.is_gone else [RetirementState(1, self.boot_id, ("host:1",), int(self.boot_id == "old"), 0, 0)]

    def begin(self, index: int) -> None:
        self.said.append(f"begin {index}")

    def end(self, index: int, boot_id: str) -> Future[bool]:
        self.said.append(f"end {index}")
        answer: Future[bool] = Future()
        answer.set_result(True)
        return answer

    def kill(self, index: int) -> bool:
        self.said.append(f"kill {index}")
        return self.boot_id == "old"

    def given_up(self, index: int) -> None:
        self.said.append(f"given up {index}")

    def die_at(self, asked: int) -> None:
        def before(now: int) -> None:
            self.boot_id = "old" if now < asked else "new"

        self.before = before


def test_the_successor_of_an_actor_that_dies_while_it_drains_is_left_alone() -> None:
    actor = Scripted()
    actor.die_at(4)
    [replaced] = RollingRestart(actor.ask, actor, lambda seconds: False).run(60.0)
    assert (replaced.boot_id, replaced.episodes_cut) == ("new", 1)
    assert actor.said == ["begin 1"], "expected no end of an actor that is new"
    assert {boot_id for boot_id, _ in actor.obeyed} == {"old"}


def test_an_actor_that_gives_no_answer_has_no_order_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling_restart, "_BEGIN_S", 0.0)
    orders = list[RetirementOrder]()

    def ask(order: RetirementOrder) -> list[RetirementState]:
        orders.append(order)
        return Scripted().ask(order) if len(orders) == 1 else []

    with pytest.raises(RestartError, match="actor 1: gives no answer, and is left as it is"):
        RollingRestart(ask, ended := Scripted(), lambda seconds: False).run(1.0)
    assert ended.said == ["begin 1", "given up 1"]
    assert [order.phase for order in orders] == ["", ""]


class Hanging(Scripted):
    """One that has handed off everything, and whose process stays until it is killed."""

    def ask(self, order: RetirementOrder) -> list[RetirementState]:
        return [state._replace(episodes_open=0) for state in super().ask(order)]

    def kill(self, index: int) -> bool:
        was_there = super().kill(index)
        self.boot_id = "new"
        return was_there


def test_a_process_that_does_not_end_is_killed_after_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert rolling_restart.END_S <= 10.0
    monkeypatch.setattr(rolling_restart, "END_S", 0.05)
    monkeypatch.setattr(rolling_restart, "_LOOK_S", 0.01)
    actor = Hanging()
    [replaced] = RollingRestart(actor.ask, actor, threading.Event().wait).run(60.0)
    assert replaced.boot_id == "new"
    assert actor.said == ["begin 1", "end 1", "kill 1"]
    assert "actor 1: its process has not ended within 0.05 s, and is killed" in caplog.text


def test_an_order_to_another_process_is_not_followed(learner: Learner) -> None:
    actor = learner.actors[1]
    for boot_id in ("", learner.actors[2].loop.boot_id):
        assert actor.retirement.follow(RetirementOrder(1, "retire", boot_id)).boot_id == actor.loop.boot_id
    assert actor.loop.core.drain_error is None


def test_an_actor_that_goes_for_good_loses_nothing_and_the_other_goes_on(learner: Learner) -> None:
    with PolicyClient(learner.address, config=CLIENT) as client:
        episodes = client.start_episodes(4)
        for _ in range(3):
            client.get_actions(episodes, [observation()] * 4)
            client.log_returns_batch(episodes, [1.0] * 4)
        ending = threading.Timer(1.0, client.end_episodes, (episodes, [observation()] * 4))
        ending.start()
        removed = learner.remove(2, 60.0)
        ending.join()
        assert (removed.number, removed.episodes_cut) == (2, 0)
        assert list(learner.actors) == [1]
        wait_until(lambda: learner.steps == 12, "all steps")
        assert (learner.rewards, client.counters().episodes_lost) == (12.0, 0)
        assert client.get_action(client.start_episode(), observation()) in range(3)
        wait_until(lambda: sorted(learner.ended) == sorted(episodes), "the ended episodes")


def test_an_actor_whose_steps_are_not_taken_is_ended_for_good_all_the_same(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling_restart, "HAND_OFF_S", 0.5)
    learner.take_no_more()
    with PolicyClient(learner.address, config=CLIENT) as client:
        episodes = client.start_episodes(2)
        for _ in range(3):
            client.get_actions(episodes, [observation(), observation()])
        with pytest.raises(RestartError, match=r"actor 2: the learner has not taken .* with 2 steps that are lost .*; it is gone for good"):
            learner.remove(2, 0.1)
        assert list(learner.actors) == [1]


def test_the_successor_of_an_actor_that_dies_while_it_goes_is_ended_too() -> None:
    actor = Scripted()
    actor.die_at(4)
    forced: list[int] = []

    def force(number: int) -> Future[bool]:
        forced.append(number)
        actor.is_gone = True
        answer: Future[bool] = Future()
        answer.set_result(True)
        return answer

    removed = RollingRestart(actor.ask, actor, lambda seconds: False).remove(1, 60.0, force)
    assert (removed.episodes_cut, forced) == (1, [1])


def test_an_actor_waits_until_the_daemon_knows_which_episodes_ended(learner: Learner) -> None:
    with PolicyClient(learner.address, config=CLIENT) as client:
        episodes = client.start_episodes(4)
        client.get_actions(episodes, [observation()] * 4)
        learner.loses_reports = True
        client.end_episodes(episodes, [observation()] * 4)
        cores = [actor.loop.core for actor in learner.actors.values()]
        wait_until(lambda: all(core.ended.waiting == 0 for core in cores), "reports, which are lost")
        heals = threading.Timer(1.0, setattr, (learner, "loses_reports", False))
        heals.start()
        assert len(learner.restart(60.0)) == 2
        heals.join()
        assert sorted(learner.ended) == sorted(episodes)
