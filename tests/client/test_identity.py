"""Which server a client talks to, and which of its clients it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from policyserver.client import HandshakeError, PolicyClient
from tests.client.conftest import FAST
from tests.client.reference_server import ReferenceServer, Servicer
from tests.services import wait_until

OURS = {"run": "mine", "instance_id": "a1"}


@pytest.mark.parametrize(
    ("expected", "field", "said"),
    [
        ({"expected_instance_id": "b2"}, "instance_id", "expects the server 'b2', at this address is 'a1'"),
        ({"expected_run": "yours"}, "run", "belongs to the run 'yours', the server records 'mine'"),
    ],
)
def test_another_server_than_the_expected_one_is_refused(
    server: ReferenceServer, connect: Callable[..., PolicyClient], expected: dict[str, Any], field: str, said: str
) -> None:
    server.servicer.identity = OURS
    with pytest.raises(HandshakeError, match=said) as caught:
        connect(config=dataclasses.replace(FAST, **expected)).start_episode()
    assert caught.value.field == field
    assert server.servicer.episodes == {}


def test_a_server_without_a_run_is_of_no_other_run_but_one_without_an_id_is_another_server(
    server: ReferenceServer, connect: Callable[..., PolicyClient]
) -> None:
    connect(config=dataclasses.replace(FAST, expected_run="mine")).connect()
    with pytest.raises(HandshakeError, match="'one without an id'"):
        connect(config=dataclasses.replace(FAST, expected_instance_id="a1")).connect()


@pytest.mark.long
def test_the_expected_server_is_taken_and_so_is_its_successor(server: ReferenceServer, connect: Callable[..., PolicyClient]) -> None:
    server.servicer.identity = OURS
    client = connect(config=dataclasses.replace(FAST, expected_run="mine", expected_instance_id="a1"))
    info = client.connect()
    assert (info.run, info.instance_id) == ("mine", "a1")
    server.stop()
    successor = Servicer()
    successor.identity = OURS
    server.start(successor)
    wait_until(lambda: client.connect().boot_id == successor.boot_id, "the client finds the successor")


@pytest.mark.long
def test_a_client_that_finds_a_stranger_in_the_servers_place_says_so(server: ReferenceServer, connect: Callable[..., PolicyClient]) -> None:
    server.servicer.identity = OURS
    client = connect(config=dataclasses.replace(FAST, expected_instance_id="a1"))
    client.start_episode()
    server.stop()
    stranger = Servicer()
    stranger.identity = {"run": "mine", "instance_id": "c3"}
    server.start(stranger)

    def refusal() -> HandshakeError | None:
        try:
            client.start_episode()
        except HandshakeError as error:
            return error
        return None

    assert "another server has the address" in str(wait_until(refusal, "the stranger is noticed"))
    assert stranger.episodes == {}


@pytest.mark.long
def test_each_client_has_a_number_of_its_own_and_keeps_it(server: ReferenceServer, connect: Callable[..., PolicyClient]) -> None:
    first, second = connect(), connect()
    assert (first.client_number, second.client_number) == (None, None)
    first.connect()
    second.connect()
    assert (first.client_number, second.client_number) == (0, 1)
    server.stop()
    successor = Servicer()
    server.start(successor)
    wait_until(lambda: second.connect().boot_id == successor.boot_id, "the client finds the successor")
    assert second.client_number == 1
    assert {shaken.client_number for shaken in successor.handshakes} <= {0, 1}, "each brings its own, so that nobody else gets it"
    assert all(shaken.HasField("client_number") for shaken in successor.handshakes)
