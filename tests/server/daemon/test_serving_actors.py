"""What the daemon looks at before an actor ends, and which ports it keeps for actors that come; Ray and its actors are played here."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray

from policyserver.server.config.ray_config import RayConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.serving_config import ListenConfig
from policyserver.server.daemon import serving_actors
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.serving_actors import BuildError, ServingActors
from policyserver.server.grpc_front.listen_address import AddressInUseError, claimed
from policyserver.server.processes.link import ACTORS
from policyserver.server.processes.retirement_state import RetirementOrder, RetirementState
from tests.ports import free_ports

SAMPLE = serving_actors._ASYNC_SAMPLE


@dataclass
class Link:
    """Actors that answer with what a test says of them."""

    states: list[RetirementState] = field(default_factory=list)
    told: list[tuple[str, Any]] = field(default_factory=list)
    released: list[int] = field(default_factory=list)

    def ask(self, timeout_s: float, *, kind: str, content: RetirementOrder) -> list[RetirementState]:
        if content.phase:
            self.told.append((content.phase, (content.number, content.boot_id)))
        return self.states

    def order(self, kind: str, content: Any, *, stays: bool = False) -> None:
        self.told.append((kind, content))

    def keep(self, kind: str, content: Any) -> None:
        self.told.append((kind, content))

    def release(self, index: int) -> None:
        self.released.append(index)


class Manager:
    """RLlib's of two actors."""

    def __init__(self) -> None:
        self._in_flight_req_to_actor_id: dict[str, tuple[str, int]] = {}
        self._remote_actor_states = {index: SimpleNamespace(num_in_flight_async_requests_by_tag={}) for index in (1, 2)}
        self.actors = [1, 2]

    def actor_ids(self) -> list[int]:
        return self.actors

    def remove_actor(self, index: int) -> str:
        self.actors.remove(index)
        return f"handle {index}"


class Played:
    """Two actors, of which the second is to go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.link, self.manager = Link(), Manager()
        self.ready: list[str] = []
        self.killed: list[str] = []
        monkeypatch.setattr(ray, "wait", lambda calls, **rest: ([call for call in calls if call in self.ready], []))
        monkeypatch.setattr(ray, "kill", self.killed.append)
        group = SimpleNamespace(_worker_manager=self.manager)
        self.config = SimpleNamespace(num_env_runners=2, env=None, _is_frozen=True)
        algorithm: Any = SimpleNamespace(config=self.config, env_runner_group=group)
        self.safe_point = SafePoint(lambda: None, threading.Event())
        self.actors = ServingActors(ServerConfig(), algorithm, cast(Any, self.link), self.safe_point)

    def says(self, boot_id: str = "old", steps: int = 0) -> None:
        self.link.states = [RetirementState(2, boot_id, ("host:2",), 0, steps, 0)]

    def ends(self, *, for_good: bool) -> bool:
        actors = self.actors
        asked = actors.remove_retired(2, "old") if for_good else self.safe_point.ask(lambda: actors.end_retired(2, "old"))
        self.safe_point.pass_by()
        return asked.result(0.0)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch)


def test_an_actor_that_has_steps_or_is_another_process_does_not_end(played: Played) -> None:
    played.says(steps=3)
    assert not played.ends(for_good=True)
    played.says("new")
    assert not played.ends(for_good=True)
    played.link.states = []
    assert not played.ends(for_good=False)
    assert (played.killed, played.link.released, played.manager.actors) == ([], [], [1, 2])


def test_one_that_goes_for_good_is_forgotten_first_and_the_others_are_told(played: Played) -> None:
    played.says()
    assert played.ends(for_good=True)
    assert (played.killed, played.link.released, played.manager.actors) == (["handle 2"], [2], [1])
    assert played.link.told == [(ACTORS, 2), (ACTORS, 1)]
    assert (played.actors.number, played.config._is_frozen) == (1, True)
    assert played.ends(for_good=False) is True
    assert played.link.told[-1] == ("end", (2, "old"))


@pytest.mark.parametrize("for_good", [True, False])
def test_steps_on_their_way_are_taken_by_rllib_before_the_process_ends(played: Played, for_good: bool) -> None:
    played.says()
    played.manager._in_flight_req_to_actor_id = {"a": (SAMPLE, 2), "b": (SAMPLE, 1), "c": ("set_state", 2)}
    played.ready = ["a", "b"]
    assert not played.ends(for_good=for_good), "its answer is there, and RLlib has not fetched it"
    assert not played.ends(for_good=for_good)
    requests = [state.num_in_flight_async_requests_by_tag for state in played.manager._remote_actor_states.values()]
    assert requests[0] == {}
    assert requests[1][SAMPLE] > 1000, "RLlib asks for no more"
    del played.manager._in_flight_req_to_actor_id["a"]
    assert played.ends(for_good=for_good)


def test_a_request_without_an_answer_is_given_the_time_to_bring_one(played: Played) -> None:
    played.says()
    played.manager._in_flight_req_to_actor_id = {"a": (SAMPLE, 2)}
    assert not played.ends(for_good=True), "it may have become empty just now"
    played.says(steps=1)
    assert not played.ends(for_good=True)
    played.says()
    assert not played.ends(for_good=True)
    assert played.ends(for_good=True)


@pytest.fixture
def alone() -> Iterator[tuple[ServingActors, str]]:
    """One actor, and the address of the next."""
    first, second = free_ports(2)
    algorithm: Any = SimpleNamespace(config=SimpleNamespace(num_env_runners=1, env=None))
    config = ServerConfig(listen=ListenConfig(f"127.0.0.1:{first}"))
    actors = ServingActors(config, algorithm, cast(Any, Link()), SafePoint(lambda: None, threading.Event()))
    yield actors, f"127.0.0.1:{second}"
    actors.close()


def test_a_port_in_use_is_refused_by_its_name_and_nothing_is_kept(alone: tuple[ServingActors, str]) -> None:
    actors, address = alone
    host, _, port = address.rpartition(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(BuildError, match=f"actor 2: listen.address: {address} is in use by another process"),
    ):
        actors.build(lambda seconds: False)
    with socket.create_server((host, int(port))):
        pass


def test_a_port_is_kept_until_its_actor_is_gone(alone: tuple[ServingActors, str], monkeypatch: pytest.MonkeyPatch) -> None:
    actors, address = alone
    monkeypatch.setattr(actors, "_make", lambda index: (_ for _ in ()).throw(ValueError("no process")))
    with pytest.raises(ValueError, match="no process"):
        actors.build(lambda seconds: False)
    host, _, port = address.rpartition(":")
    actors._keep_port(2)
    with pytest.raises(AddressInUseError), claimed(address):  # as another server would
        pass
    actors.close()
    with socket.create_server((host, int(port))):
        pass


def test_the_last_port_there_is_has_no_next(alone: tuple[ServingActors, str]) -> None:
    algorithm: Any = SimpleNamespace(config=SimpleNamespace(num_env_runners=1, env=None))
    config = ServerConfig(listen=ListenConfig("127.0.0.1:65535"))
    actors = ServingActors(config, algorithm, cast(Any, Link()), SafePoint(lambda: None, threading.Event()))
    with pytest.raises(BuildError, match=r"actor 2: .*expected a port of at most 65534"):
        actors.build(lambda seconds: False)


def test_the_bounds_are_the_configured_ones_or_what_the_server_began_with(alone: tuple[ServingActors, str]) -> None:
    assert (alone[0].most, alone[0].begun_with) == (8, 1)
    algorithm: Any = SimpleNamespace(config=SimpleNamespace(num_env_runners=12, env=None))
    many = ServingActors(ServerConfig(), algorithm, cast(Any, Link()), SafePoint(lambda: None, threading.Event()))
    assert many.most == 12


@pytest.mark.parametrize(
    ("address", "env", "joins", "expected"),
    [("h:1", None, "", False), ("h:0", None, "", True), ("h:0", None, "auto", False), ("h:1", "CartPole-v1", "", True)],
)
def test_where_an_actor_chooses_its_address_itself(address: str, env: str | None, joins: str, expected: bool) -> None:
    algorithm: Any = SimpleNamespace(config=SimpleNamespace(num_env_runners=1, env=env))
    config: Any = SimpleNamespace(listen=ListenConfig(address), ray=RayConfig(joins))
    actors = ServingActors(config, algorithm, cast(Any, Link()), SafePoint(lambda: None, threading.Event()))
    assert actors.listen_by_themselves is expected
