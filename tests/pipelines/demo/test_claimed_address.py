"""A demo claims a free port below those that the system hands out, or any if there is none, and its server can bind it."""

from __future__ import annotations

import contextlib
import socket

import pytest

from policyserver.pipelines.demo.claimed_address import claimed_address
from policyserver.server.grpc_front.listen_address import check_free, reserve_ports


def port_of(address: str) -> int:
    host, _, port = address.rpartition(":")
    assert host == "127.0.0.1"
    return int(port)


def test_claims_at_one_time_differ_and_are_none_that_the_system_hands_out() -> None:
    with contextlib.ExitStack() as stack:
        ports = [port_of(stack.enter_context(claimed_address())) for _ in range(5)]
        assert ports == sorted(set(ports))
        assert all(9900 <= port < 10_000 for port in ports)
    with claimed_address() as again:
        assert port_of(again) <= ports[0]


@pytest.mark.parametrize("listening", [True, False])
def test_a_port_that_somebody_has_is_not_claimed_even_if_he_does_not_listen_yet(listening: bool) -> None:
    with claimed_address() as address:
        pass
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port_of(address)))
        if listening:
            other.listen()
        with claimed_address() as next_one:
            assert port_of(next_one) > port_of(address)


def test_the_claim_is_not_in_the_way_of_the_server() -> None:
    with claimed_address() as address:
        check_free(address)
        with reserve_ports([address]), socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port_of(address)))
            server.listen()


def test_without_a_free_port_below_those_of_the_system_the_system_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserver.pipelines.demo.claimed_address._PORTS_TRIED", 0)
    with claimed_address() as first, claimed_address() as second:
        assert port_of(first) != port_of(second)
        assert port_of(first) > 10_000
