"""Changes the number of serving actors while the server serves and learns."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from policyserver.server.daemon.rolling_restart import Removed, RestartError, RollingRestart
from policyserver.server.daemon.scale_errors import BoundsError, ScaleError
from policyserver.server.daemon.serving_actors import BuildError, ServingActors

logger = logging.getLogger(__name__)


class Added(NamedTuple):
    """One actor that came."""

    number: int
    address: str
    seconds: float


class Scaled(NamedTuple):
    """What has changed."""

    before: int
    actors: int
    added: list[Added]
    removed: list[Removed]


class Scaling:
    """Adds and removes actors one by one, the last ones first."""

    def __init__(
        self,
        actors: ServingActors,
        leaving: RollingRestart,
        wait: Callable[[float], bool],
        is_paused: Callable[[], bool] = lambda: False,
        check_room: Callable[[int], None] = lambda more: None,
    ) -> None:
        """Take what it needs.

        Args:
            actors: Those that there are.
            leaving: How one goes.
            wait: Waits so many seconds and says whether the server stops.
            is_paused: Says whether learning is paused, so that no steps are taken.
            check_room: Raises NoRoomError where there is not enough for so many more.
        """
        self._actors = actors
        self._leaving = leaving
        self._wait = wait
        self._is_paused = is_paused
        self._check_room = check_room

    def run(self, wanted: int, drain_timeout_s: float) -> Scaled:
        """Have as many actors as wanted; open episodes of one that goes have `drain_timeout_s` to end in.

        Raises:
            ScaleError: There are others than wanted. What was changed before stays.
        """
        before = self._actors.number
        self._check(wanted, before)
        added: list[Added] = []
        removed: list[Removed] = []
        try:
            if wanted > before:
                self._check_room(wanted - before)
            while self._actors.number < wanted:
                added.append(self._add())
            while self._actors.number > wanted:
                removed.append(self._leaving.remove(self._actors.number, drain_timeout_s, self._actors.remove))
        except (BuildError, RestartError) as error:
            raise ScaleError(f"{error}. There are {self._actors.number} serving actors now, {before} before, {wanted} wanted") from error
        if before != wanted:
            logger.info("%d serving actors, %d before", wanted, before)
        return Scaled(before, wanted, added, removed)

    def _check(self, wanted: int, before: int) -> None:
        actors = self._actors
        if not 1 <= wanted <= actors.most:
            raise BoundsError(
                f"actors: expected 1 to {actors.most}, received {wanted}; the bound is listen.max_actors, or how many the server began "
                "with if that is more"
            )
        if before == 0:
            raise ScaleError(
                "expected serving actors, received none: with algorithm.env_runners.num_env_runners = 0 the learner's process serves "
                "alone; start the server with 1 or more"
            )
        if wanted > before and actors.listen_by_themselves:
            raise ScaleError(
                "expected listen.address with a port, and clients from outside: received port 0 or an environment of the algorithm's, with "
                "which clients are told of no other actor"
            )
        if wanted < before and self._is_paused():
            raise ScaleError(
                "expected a learner that takes the steps of actors that go, received one that is paused: `policy-server ctl resume` lets "
                "it go on"
            )

    def _add(self) -> Added:
        begun = time.monotonic()
        actor, address = self._actors.build(self._wait)
        before = self._actors.number
        try:
            number = self._actors.take_up(actor).result()
        except Exception:  # the server drains, or RLlib gives no state
            if self._actors.number == before:
                self._actors.discard(actor)
            raise
        seconds = time.monotonic() - begun
        logger.info("actor %d: serves on %s after %.1f s", number, address, seconds)
        return Added(number, address, seconds)
