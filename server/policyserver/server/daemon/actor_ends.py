"""Ends serving actors on purpose, so that RLlib starts them again."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.planned_deaths import ActorProcess, PlannedDeaths
from policyserver.server.daemon.safe_point import SafePoint

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)


class ActorEnds:
    """The ends of the serving actors of an algorithm, one after another. From any thread."""

    def __init__(self, algorithm: Algorithm, safe_point: SafePoint) -> None:
        """Take the algorithm whose actors they are; nothing ends yet."""
        self._algorithm = algorithm
        self._safe_point = safe_point
        self._deaths = PlannedDeaths(algorithm.env_runner_group)
        self._leaving: dict[int, ActorProcess | None] = {}

    def close(self) -> None:
        """Let Ray and RLlib say what they like again. A second call does nothing."""
        self._deaths.close()

    def begin(self, index: int) -> None:
        """Note which process of an actor is to go."""
        self._leaving[index] = _process_of(self._handle(index))

    def end(self, index: int) -> Future[bool]:
        """End an actor that has handed off everything, at the safe point; tells whether it ends."""

        def end() -> bool:
            group = self._algorithm.env_runner_group
            if (process := self._leaving.get(index)) is not None:
                self._deaths.expect(index, _id_of(self._handle(index)), process)
            ends = group.foreach_env_runner(lambda runner: runner.end_retired(), local_env_runner=False, remote_worker_ids=[index])
            if ends != [True]:
                self._deaths.given_up(index)
            return bool(ends == [True])

        return self._safe_point.ask(end)

    def kill(self, index: int) -> bool:
        """Kill the process that was to go, if it is still there, and have Ray start the actor again; returns whether it was there."""
        import ray

        handle = self._handle(index)
        if (process := self._leaving.get(index)) is None or _process_of(handle) != process:
            return False
        ray.kill(handle, no_restart=False)
        return True

    def given_up(self, index: int) -> None:
        """Take note that the replacement of an actor was left: what Ray says of it from now on is told as ever."""
        self._deaths.given_up(index)

    def _handle(self, index: int) -> Any:
        return self._algorithm.env_runner_group._worker_manager.actors().get(index)


def _id_of(handle: Any) -> str:
    return str(handle._actor_id.hex())


def _process_of(handle: Any) -> ActorProcess | None:
    """Return the process of an actor; None if it has none now."""
    from ray._private.state import actors

    about: dict[str, Any] = actors(_id_of(handle)) if handle is not None else {}
    if about.get("State") != "ALIVE":
        return None
    return ActorProcess(about["Address"]["IPAddress"], about["Address"]["Port"], about["Pid"])
