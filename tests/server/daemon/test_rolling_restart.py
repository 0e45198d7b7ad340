"""A rolling restart of two actors in this process: real loops, link and clients; a thread samples and starts the successors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from policyserver.client import EpisodeLostError, PolicyClient
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.daemon.rolling_restart import RestartError, RollingRestart, ask_by
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.segments import episodes_of
from policyserver.server.processes.driver_link import DriverLink, follow_driver
from policyserver.server.processes.link import RETIRE
from policyserver.server.runner.retirement import Retirement
from policyserver.server.runner.serving_loop import ServingLoop
from tests.ports import free_ports
from tests.server.core_harness import ACTION, NEVER_WAITS, OBSERVATION, module_of, observation, policy_of
from tests.server.serving_loop_harness import CLIENT

pytestmark = pytest.mark.long


class Actor:
    """What serves on one port."""

    def __init__(self, number: int, addresses: list[str], link: Path) -> None:
        self.number, self._addresses, self._link = number, addresses, link
        serving = ServingConfig(ListenConfig(addresses[number - 1]), EpisodesConfig(max_open=256), HandOffConfig())
        policy = policy_of(module_of())
        self.loop = ServingLoop(
            lambda: EpisodeCore(policy, OBSERVATION, ACTION, serving.episodes, serving.hand_off, NEVER_WAITS), OBSERVATION, ACTION, serving
        )
        self.loop.endpoints = lambda: addresses
        self.loop.start()
        self.retirement = Retirement(number, self.loop)
        self._unfollow = follow_driver(
            link, lambda final: None, lambda: None, lambda state: None, self.report, questions={RETIRE: self.retirement.follow}
        )
        self.loop.bind()

    def report(self) -> Any:
        return self.loop.report(explores=True)

    def successor(self) -> Actor:
        self.stop()
        return Actor(self.number, self._addresses, self._link)

    def stop(self) -> None:
        self._unfollow()
        self.loop.stop(0.0)


class Learner:
    """Takes what the actors have, in turns, and does what it is asked between two turns."""

    def __init__(self, folder: Path) -> None:
        self.link = DriverLink(folder / "link")
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        self.actors = {number: Actor(number, addresses, self.link.path) for number in (1, 2)}
        self.address = addresses[0]
        self.takes = True
        self.steps = 0
        self.rewards = 0.0
        self.ended: list[str] = []
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            while not self._tasks.empty():
                self._tasks.get()()
            for actor in list(self.actors.values()):
                if self.takes:
                    for episode in episodes_of(actor.loop.sample(64, 0.02, or_fewer=True)):
                        self.steps += len(episode)
                        self.rewards += float(sum(episode.get_rewards()))
            for report in self.link.ask(1.0):
                self.ended += report.episodes.get("episode", [])
            time.sleep(0.02)

    def end(self, number: int) -> Future[bool]:
        answer: Future[bool] = Future()

        def end() -> None:
            actor = self.actors[number]
            is_done = actor.retirement.is_done()
            if is_done:
                self.actors[number] = actor.successor()
            answer.set_result(is_done)

        self._tasks.put(end)
        return answer

    def restart(self, drain_timeout_s: float, wait: Callable[[float], bool] | None = None) -> list[Any]:
        return RollingRestart(ask_by(self.link.ask, RETIRE), self.end, wait or self._over.wait).run(drain_timeout_s)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for actor in self.actors.values():
            actor.stop()
        self.link.close()


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
        replaced = learner.restart(20.0)
        over.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert client.counters().episodes_lost == 0
        assert [(each.number, each.episodes_cut) for each in replaced] == [(1, 0), (2, 0)]
        assert not boots & {actor.loop.boot_id for actor in learner.actors.values()}
        until_s = time.monotonic() + 20.0
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
            learner.restart(20.0, lambda seconds: True)


def test_without_actors_there_is_nothing_to_restart() -> None:
    with pytest.raises(RestartError, match="expected serving actors"):
        RollingRestart(lambda order: [], lambda number: Future(), lambda seconds: False).run(1.0)
