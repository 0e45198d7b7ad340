"""Two serving actors in this process that can be replaced: real loops and link; a thread samples and starts the successors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.daemon.reported_once import ReportedOnce
from policyserver.server.daemon.rolling_restart import Removed, RollingRestart, ask_by
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.segments import episodes_of
from policyserver.server.processes.driver_link import DriverLink, follow_driver
from policyserver.server.processes.link import RETIRE
from policyserver.server.processes.retirement_state import RetirementOrder
from policyserver.server.runner.retirement import Retirement
from policyserver.server.runner.serving_loop import ServingLoop
from tests.ports import free_ports
from tests.server.core_harness import ACTION, NEVER_WAITS, OBSERVATION, module_of, policy_of


class Actor:
    """What serves on one port."""

    def __init__(self, number: int, addresses: list[str], link: Path) -> None:
        self.number, self._addresses, self._link = number, addresses, link
        self._left = threading.Event()
        serving = ServingConfig(ListenConfig(addresses[number - 1]), EpisodesConfig(max_open=256), HandOffConfig())
        policy = policy_of(module_of())
        self.loop = ServingLoop(
            lambda: EpisodeCore(policy, OBSERVATION, ACTION, serving.episodes, serving.hand_off, NEVER_WAITS), OBSERVATION, ACTION, serving
        )
        self.loop.endpoints = lambda: addresses
        self.loop.start()
        self.retirement = Retirement(number, self.loop, self._left.set)
        self._unfollow = follow_driver(
            link, lambda final: None, lambda: None, lambda state: None, self.report, questions={RETIRE: self.retirement.follow}
        )
        self.loop.bind()

    @property
    def is_over(self) -> bool:
        """Whether its process would have ended."""
        return self._left.is_set()

    def report(self, told: Any) -> Any:
        return self.loop.report(told, explores=True)

    def successor(self) -> Actor:
        self.stop()
        return Actor(self.number, self._addresses, self._link)

    def stop(self) -> None:
        self._unfollow()
        self.loop.stop(0.0)


class EndsByThemselves:
    """What is done around an end: nothing, for actors that end by themselves in time."""

    def begin(self, index: int) -> None:
        pass

    def kill(self, index: int) -> bool:
        raise AssertionError(f"expected actor {index} to end by itself")

    def given_up(self, index: int) -> None:
        pass


class Learner(EndsByThemselves):
    """Takes what the actors have, in turns, and does what it is asked between two turns."""

    def __init__(self, folder: Path) -> None:
        self.link = DriverLink(folder / "link")
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        self.actors = {number: Actor(number, addresses, self.link.path) for number in (1, 2)}
        self.address = addresses[0]
        self.replaced: list[tuple[int, bool]] = []
        self.takes, self.is_paused = True, False
        self.steps = 0
        self.rewards = 0.0
        self.ended: list[str] = []
        self.loses_reports = False
        """Whether what the actors answer is lost on its way."""
        self._reports = ReportedOnce(self)  # type: ignore[arg-type]  # it only asks
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            while not self._tasks.empty():
                self._tasks.get()()
            for number, actor in list(self.actors.items()):
                if actor.is_over:
                    self.actors[number] = actor.successor()
            for actor in list(self.actors.values()):
                if self.takes:
                    for episode in episodes_of(actor.loop.sample(64, 0.02, or_fewer=True)):
                        self.steps += len(episode)
                        self.rewards += float(sum(episode.get_rewards()))
            for report in self._reports.ask(1.0, lambda late: None):
                self.ended += report.episodes.get("episode", [])
            time.sleep(0.02)

    def take_no_more(self) -> None:
        """Take no steps from now on; what is being taken has arrived."""
        self.takes = False
        turn = threading.Event()
        self._tasks.put(turn.set)
        assert turn.wait(60.0)

    def ask(self, timeout_s: float, on_late: Callable[[Any], None], *, content: Any) -> Sequence[Any]:
        answers = self.link.ask(timeout_s, on_late, content=content)
        return [] if self.loses_reports else answers

    def end(self, index: int, boot_id: str) -> Future[bool]:
        answer: Future[bool] = Future()

        def end() -> None:
            retirement = self.actors[index].retirement
            state = retirement.follow(RetirementOrder(index, ""))
            is_done = state.is_empty and state.boot_id == boot_id
            if is_done:
                retirement.follow(RetirementOrder(index, "end", boot_id))
            answer.set_result(is_done)

        self._tasks.put(end)
        return answer

    def end_for_good(self, number: int, boot_id: str, *, forced: bool = False) -> Future[bool]:
        answer: Future[bool] = Future()

        def end() -> None:
            actor = self.actors[number]
            is_done = forced or actor.retirement.follow(RetirementOrder(number, "")).is_empty
            if is_done:
                del self.actors[number]
                actor.stop()
            answer.set_result(is_done)

        self._tasks.put(end)
        return answer

    def remove(self, number: int, drain_timeout_s: float) -> Removed:
        leaving = RollingRestart(ask_by(self.link.ask, RETIRE), ForGood(self), self._over.wait, lambda: self.is_paused)
        return leaving.remove(number, drain_timeout_s, lambda index: self.end_for_good(index, "", forced=True))

    def restart(self, drain_timeout_s: float, wait: Callable[[float], bool] | None = None) -> list[Any]:
        ask = ask_by(self.link.ask, RETIRE)
        return RollingRestart(ask, self, wait or self._over.wait, lambda: self.is_paused, self._note_replaced).run(drain_timeout_s)

    def _note_replaced(self, number: int, is_replaced: bool) -> None:
        self.replaced.append((number, is_replaced))

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for actor in self.actors.values():
            actor.stop()
        self.link.close()


class ForGood(EndsByThemselves):
    """Ends that no successor follows."""

    def __init__(self, learner: Learner) -> None:
        self.end = learner.end_for_good
