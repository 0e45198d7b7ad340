"""Runners that come and go while a client plays: it is told on its streams, and connects to nothing by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from policyserver.client import EpisodeLostError, PolicyClient
from tests.client.conftest import FAST, Service, addresses
from tests.client.inner_parts import connections_of
from tests.client.reference_server import ReferenceServer, Servicer
from tests.services import wait_until

ZEROS = np.zeros(10, np.float32)
pytestmark = pytest.mark.long


def held(runner: ReferenceServer) -> set[str]:
    return set(runner.servicer.episodes)


def targets(client: PolicyClient) -> list[str]:
    return [connection.target for connection in connections_of(client)]


def tell_all(runners: Service, told: Service, **loads: int) -> None:
    for runner in told:
        runner.tell(addresses(runners), **loads)


def alone(service: Service) -> None:
    """Have the first runner be the only one."""
    service[0].servicer.endpoints = [service[0].address]


def test_new_episodes_use_a_runner_that_came_and_the_open_ones_stay(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    alone(service)
    client = connect_to(service)
    for episode in client.start_episodes(["a", "b", "c"]):
        client.get_action(episode, ZEROS)
    assert targets(client) == [service[0].address]
    service[0].tell(addresses(service))
    wait_until(lambda: len(connections_of(client)) == 2 and connections_of(client)[1].is_open, "the new runner")
    for episode in client.start_episodes(["d", "e", "f"]):
        client.get_action(episode, ZEROS)
    assert (held(service[0]), held(service[1])) == ({"a", "b", "c"}, {"d", "e", "f"})
    for episode in "abcdef":
        client.get_action(episode, ZEROS)
        client.end_episode(episode, ZEROS)
    assert client.counters().episodes_lost == 0


def test_a_runner_that_is_listed_no_more_is_left_once_nothing_is_open_there(
    service: Service, connect_to: Callable[..., PolicyClient]
) -> None:
    client = connect_to(service)
    client.get_actions(client.start_episodes(["a", "b"]), np.zeros((2, 10), np.float32))
    assert (held(service[0]), held(service[1])) == ({"a"}, {"b"})
    service[0].tell([service[0].address])
    wait_until(lambda: connections_of(client)[1].target != service[0].address and len(targets(client)) == 2, "it stays")
    for episode in client.start_episodes(["c", "d", "e"]):
        client.get_action(episode, ZEROS)
    assert held(service[1]) == {"b"}
    client.get_action("b", ZEROS)
    client.end_episode("b", ZEROS)
    service[0].tell(addresses(service))
    service[0].tell([service[0].address])
    wait_until(lambda: targets(client) == [service[0].address] and service[1].servicer.streams == 0, "it is left")
    assert client.counters().episodes_lost == 0


def test_the_given_runner_says_that_it_goes_and_the_other_stays(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(service[::-1])  # which is given the second one
    client.get_action(client.start_episode("a"), ZEROS)
    client.end_episode("a", ZEROS)
    wait_until(lambda: all(connection.is_open for connection in connections_of(client)), "both")
    service[1].tell(addresses(service[:1]))
    service[1].stop()
    wait_until(lambda: not connections_of(client)[-1].is_open, "its end")
    client.get_action(client.start_episode("b"), ZEROS)
    assert held(service[0]) >= {"b"}


def test_the_given_address_may_go_and_come_back(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(service[::-1])  # which is given the second one
    client.get_action(client.start_episode("a"), ZEROS)
    client.end_episode("a", ZEROS)
    tell_all(service[:1], service)
    service[1].stop()
    wait_until(lambda: not connections_of(client)[-1].is_open, "its end")
    for episode in client.start_episodes(["b", "c"]):
        client.get_action(episode, ZEROS)
    assert {"b", "c"} <= held(service[0])
    successor = Servicer()
    successor.endpoints = addresses(service)
    service[1].start(successor)
    wait_until(lambda: all(connection.is_open for connection in connections_of(client)), "the successor")
    service[0].tell(addresses(service))
    for episode in client.start_episodes(["d", "e"]):
        client.get_action(episode, ZEROS)
    assert held(service[1]) == {"d", "e"}
    assert client.counters().episodes_lost == 0


def test_an_open_episode_of_a_runner_that_ends_unlisted_is_lost_and_no_other(
    service: Service, connect_to: Callable[..., PolicyClient]
) -> None:
    client = connect_to(service)
    client.get_actions(client.start_episodes(["a", "b"]), np.zeros((2, 10), np.float32))
    service[0].tell([service[0].address])
    service[1].stop()
    with pytest.raises(EpisodeLostError):
        client.get_action("b", ZEROS)
    client.get_action("a", ZEROS)
    assert client.counters().episodes_lost == 1


def test_what_others_have_to_do_decides_between_equals(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    service[0].servicer.loads = dict(zip(addresses(service), (900, 0), strict=True))
    client = connect_to(service)

    def play(name: str) -> None:
        client.get_action(client.start_episode(name), ZEROS)
        client.end_episode(name, ZEROS)

    for number in range(40):
        play(f"a{number}")
    assert 15 <= len(held(service[1])) <= 20, "half at most"
    told = client.server_info()
    assert [(load.address, load.episodes_open) for load in told.endpoint_loads] == list(zip(addresses(service), (900, 0), strict=True))
    before = len(held(service[1]))
    service[0].tell(addresses(service), _0=5, _1=5)
    client.get_action(client.start_episode("b"), ZEROS)  # its answer comes after what was told
    client.end_episode("b", ZEROS)
    for number in range(20):
        play(f"c{number}")
    assert len(held(service[1])) - before <= 1


def test_a_client_that_does_not_spread_keeps_its_one_address(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    alone(service)
    client = connect_to(service, replace(FAST, spread_episodes=False))
    client.get_action(client.start_episode("a"), ZEROS)
    service[0].tell(addresses(service))
    client.get_action("a", ZEROS)
    assert targets(client) == [service[0].address]


def test_what_a_client_says_of_itself_lets_it_be_told(server: ReferenceServer, client: PolicyClient) -> None:
    client.connect()
    assert [handshake.takes_endpoints for handshake in server.servicer.handshakes] == [True]
