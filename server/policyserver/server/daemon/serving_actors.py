"""The serving actors of the running algorithm: how many there are, and how one comes and one goes while it trains.

RLlib itself adds env runners before their processes are there, and waits for them in its next call of all. So the daemon starts the process
by the group's own means, waits beside the training until it listens, and gives it to the group's manager of actors at the safe point.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from policyserver.common.settings import SettingsError
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.served_state import served_state
from policyserver.server.grpc_front.listen_address import address_of, claimed, reserve_ports
from policyserver.server.processes.link import ACTORS, RETIRE, Link
from policyserver.server.processes.retirement_state import RetirementOrder, RetirementState

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)

BUILD_S = 300.0
"""Longest time that a new actor is given to listen. It takes about five seconds of processor time."""
_LOOK_S = 0.25
"""How long Ray is waited for between two looks at whether the server stops: its wait can't be woken."""
_ANSWER_S = 2.0
_SET_STATE_S = 30.0
_ASYNC_SAMPLE = "sample_get_state_and_metrics"
"""RLlib's tag of what APPO and IMPALA have under way in an actor."""
_NO_MORE = 1_000_000
"""Requests that are said to be under way, so that RLlib makes no further ones."""
_MOST_TEXT = 500


def intensity_factor(before: int, after: int) -> float:
    """Return by what DQN's and SAC's `training_intensity` is multiplied, so that as many updates follow a step as with other env runners.

    RLlib takes one env runner more than there are for what was sampled (`calculate_rr_weights`).
    """
    return (before + 1) / before * after / (after + 1) if before else 1.0


class BuildError(RuntimeError):
    """A new actor does not serve; the text says why."""


class ServingActors:
    """Adds and removes them. From any thread, unless a method says otherwise."""

    def __init__(self, config: ServerConfig, algorithm: Algorithm, link: Link, safe_point: SafePoint) -> None:
        """Begin with those that the algorithm has."""
        self._config = config
        self._algorithm = algorithm
        self._link = link
        self._safe_point = safe_point
        self.begun_with = self.number
        """How many there were at the start."""
        self._begun_intensity: float | None = getattr(algorithm.config, "training_intensity", None)
        link.keep(ACTORS, self.number)
        self._ports: dict[int, contextlib.ExitStack] = {}
        """What keeps the port of each that was added on this machine; those of the first ones are the daemon's."""
        self._empty: set[int] = set()
        """Actors that had nothing to hand off when it was looked last, with a request for steps still under way."""

    @property
    def number(self) -> int:
        """Serving actors that there should be; 0 where the driver itself serves."""
        return int(self._algorithm.config.num_env_runners)

    @property
    def most(self) -> int:
        """How many there may be."""
        return max(self._config.listen.max_actors, self.begun_with)

    @property
    def listen_by_themselves(self) -> bool:
        """Whether an environment or the system decides where they listen, so that no other actor could tell clients."""
        chosen = self._config.listen.address.endswith(":0") and not self._config.ray.joins
        return self._algorithm.config.env is not None or chosen

    def check_room(self, more: int) -> None:
        """Refuse more actors than a cluster has room for; on this machine the ports alone decide.

        Raises:
            NoRoomError: There is room for fewer; other ScaleErrors as of `cluster_room.check_room`.
        """
        if self._config.ray.joins:
            from policyserver.server.daemon.cluster_room import check_room

            check_room(self._config, self._algorithm.config, more)

    def build(self, wait: Callable[[float], bool]) -> tuple[Any, str]:
        """Start the next actor's process, and return Ray's handle of it and where it listens; RLlib does not know of it yet.

        Args:
            wait: Waits so many seconds and says whether the server stops.

        Raises:
            BuildError: Its port is not free, it does not start, or the server stops. Nothing of it is left.
        """
        import ray

        index = self.number + 1
        self._keep_port(index)
        try:
            actor = self._make(index)
            opened, addresses = actor.open.remote(), actor.addresses.remote()
            try:
                self._wait_for(addresses, index, wait)
                ray.get(opened)
                return actor, ", ".join(ray.get(addresses))
            except BaseException as error:
                self._link.release(index)
                ray.kill(actor)
                if isinstance(error, BuildError) or not isinstance(error, Exception):
                    raise
                text = " ".join(str(error).split())[-_MOST_TEXT:]
                raise BuildError(f"actor {index}: expected it to listen, it failed: {text}") from error
        except BaseException:
            self._free_port(index)
            raise

    def take_up(self, actor: Any) -> Future[int]:
        """Give a new actor what the learner has, sample from it, and tell all of it, at the safe point; tells its number."""

        def take_up() -> int:
            group = self._algorithm.env_runner_group
            manager, index = group._worker_manager, self.number + 1
            state, server = served_state(self._algorithm), getattr(self._algorithm, "_env_runner_state_server", None)
            manager._next_id = index  # an earlier one may have had it
            manager.add_actors([actor])

            def begin(runner: Any) -> None:
                if server is not None:
                    runner._env_runner_state_server = server
                runner.set_state(state)

            group.foreach_env_runner(begin, remote_worker_ids=[index], local_env_runner=False, timeout_seconds=_SET_STATE_S)
            self._be(index)
            return index

        return self._safe_point.ask(take_up)

    def discard(self, actor: Any) -> None:
        """End an actor that was built and is not taken up."""
        import ray

        self._link.release(self.number + 1)
        ray.kill(actor)
        self._free_port(self.number + 1)

    def remove_retired(self, index: int, boot_id: str) -> Future[bool]:
        """End the last actor for good, if this process of it has handed off everything, at the safe point; tells whether it has ended."""
        return self._safe_point.ask(lambda: self._has_handed_off(index, boot_id) and self._remove(index))

    def remove(self, index: int) -> Future[bool]:
        """End the last actor for good, whatever it has, at the safe point."""
        return self._safe_point.ask(lambda: self._remove(index))

    def close(self) -> None:
        """Free the ports. A second call does nothing."""
        for index in list(self._ports):
            self._free_port(index)

    # --- in the main thread, at the safe point ----------------------------------------------------------------------------------------

    def end_retired(self, index: int, boot_id: str) -> bool:
        """End this process of an actor, if it has handed off everything; RLlib starts it again. Returns whether it ends."""
        has_ended = self._has_handed_off(index, boot_id)
        if has_ended:
            self._ask(RetirementOrder(index, "end", boot_id))
        return has_ended

    def _be(self, number: int) -> None:
        """Note how many there are, here and in all of them, before they are asked for steps."""
        config = self._algorithm.config
        is_frozen, config._is_frozen = config._is_frozen, False
        config.num_env_runners = number
        if self._begun_intensity:
            config.training_intensity = self._begun_intensity * intensity_factor(self.begun_with, number)
        config._is_frozen = is_frozen
        self._link.order(ACTORS, number, stays=True)
        self._ask(RetirementOrder(0, ""))  # whose answers come after the order was followed

    def _has_handed_off(self, index: int, boot_id: str) -> bool:
        """Tell whether the process of an actor has handed off everything, and RLlib has taken it."""
        states = self._ask(RetirementOrder(0, ""))
        manager = self._algorithm.env_runner_group._worker_manager
        under_way = [call for call, (tag, actor) in manager._in_flight_req_to_actor_id.items() if actor == index and tag == _ASYNC_SAMPLE]
        was_empty = index in self._empty
        self._empty.discard(index)
        if not any((each.number, each.boot_id) == (index, boot_id) and each.is_empty for each in states):
            return False
        if not under_way:
            return True
        import ray

        manager._remote_actor_states[index].num_in_flight_async_requests_by_tag[_ASYNC_SAMPLE] = _NO_MORE
        ready, _ = ray.wait(under_way, num_returns=len(under_way), timeout=0.0, fetch_local=False)
        if ready:  # with its last steps, perhaps: RLlib takes it first
            return False
        self._empty.add(index)
        return was_empty  # what it had when it became empty would have arrived since

    def _remove(self, index: int) -> bool:
        import ray

        manager = self._algorithm.env_runner_group._worker_manager
        if index not in manager.actor_ids():
            return True
        self._empty.discard(index)
        self._link.release(index)
        ray.kill(manager.remove_actor(index))
        self._be(index - 1)
        self._free_port(index)
        return True

    # --- beside it --------------------------------------------------------------------------------------------------------------------

    def _ask(self, order: RetirementOrder) -> list[RetirementState]:
        return self._link.ask(_ANSWER_S, kind=RETIRE, content=order)

    def _make(self, index: int) -> Any:
        group = self._algorithm.env_runner_group
        maker = copy.copy(group)
        if not self._config.ray.joins:  # a Ray of our own has as many tickets as it began with, and they are no processors
            maker._remote_args = {**group._remote_args, "num_cpus": 0}
        return maker._make_worker(
            env_creator=group._env_creator,
            validate_env=None,
            worker_index=index,
            num_workers=index,
            config=group._remote_config_obj_ref,
        )

    @staticmethod
    def _wait_for(answer: Any, index: int, wait: Callable[[float], bool]) -> None:
        import ray

        until_s = time.monotonic() + BUILD_S
        while not ray.wait([answer], timeout=_LOOK_S)[0]:
            if wait(0.0):
                raise BuildError(f"actor {index}: the server stops")
            if time.monotonic() > until_s:
                raise BuildError(
                    f"actor {index}: expected it to listen within {BUILD_S:g} s, it does not; Ray has found no place for it, or see the log"
                )

    def _keep_port(self, index: int) -> None:
        """Keep the port of an actor on this machine; that of one of the first ones is kept already."""
        if self._config.ray.joins or index <= self.begun_with:
            return
        with contextlib.ExitStack() as kept:
            try:
                address = address_of(self._config.listen.address, index - 1)
                kept.enter_context(claimed(address))
                kept.enter_context(reserve_ports([address]))
            except (OSError, SettingsError) as error:
                text = error.strerror if isinstance(error, OSError) else None
                raise BuildError(f"actor {index}: {text or error}") from error
            self._ports[index] = kept.pop_all()

    def _free_port(self, index: int) -> None:
        if (kept := self._ports.pop(index, None)) is not None:
            kept.close()
