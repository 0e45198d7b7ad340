"""A listen address that is in use, foreign or impossible is refused, and a held port goes to the server and to no other process."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from policyserver.common.settings import SettingsError
from policyserver.server.grpc_front.listen_address import AddressInUseError, address_of, check_free, reserve_ports
from tests.ports import is_handed_out, port_of_the_systems_choice


def test_an_address_in_use_is_found_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressInUseError, match=f"{address} is in use by another process"):
            check_free(address)
    check_free(address)
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(AddressInUseError):
            check_free(f"unix:{path}")
    check_free(f"unix:{path}")


def test_an_address_of_another_machine_cannot_be_bound() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1:9900 can't be bound"):
        check_free("192.0.2.1:9900")


@pytest.mark.parametrize(
    ("address", "number", "expected"),
    [
        ("127.0.0.1:9900", 0, "127.0.0.1:9900"),
        ("127.0.0.1:9900", 2, "127.0.0.1:9902"),
        ("[::1]:9900", 1, "[::1]:9901"),
        ("http://127.0.0.1:9900/", 1, "127.0.0.1:9901"),
        ("127.0.0.1:0", 3, "127.0.0.1:0"),
        ("unix:/run/policy.sock", 0, "unix:/run/policy.sock"),
        ("unix:/run/policy.sock", 1, "unix:/run/policy.sock.1"),
    ],
)
def test_the_addresses_of_several_follow_from_one(address: str, number: int, expected: str) -> None:
    assert address_of(address, number) == expected


def test_ports_that_there_are_not_are_refused() -> None:
    expected = r"listen\.address: expected a port of at most 65533, .* received 127\.0\.0\.1:65534; choose a lower one, or fewer"
    with pytest.raises(SettingsError, match=expected):
        address_of("127.0.0.1:65534", 2)


def test_sockets_of_several_actors_whose_paths_would_be_too_long_are_refused() -> None:
    assert address_of(f"unix:/{'x' * 101}", 2) == f"unix:/{'x' * 101}.2"
    with pytest.raises(
        SettingsError, match=r"listen\.address: .* at most 10[37] bytes for a unix socket, .* choose a shorter path, or fewer"
    ):
        address_of(f"unix:/{'x' * 102}", 10_000)


@pytest.fixture
def port() -> int:
    return port_of_the_systems_choice()


def test_the_system_hands_out_no_port_that_is_held(port: int) -> None:
    with reserve_ports([f"127.0.0.1:{port}"]):
        assert not is_handed_out(port)


def test_a_grpc_server_listens_on_a_held_port_and_no_second_one(port: int) -> None:
    with reserve_ports([f"127.0.0.1:{port}"]), ThreadPoolExecutor(1) as pool:
        for _ in range(2):  # the second in place of the first, as a serving actor is replaced
            server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
            assert server.add_insecure_port(f"127.0.0.1:{port}") == port
            server.start()
            with pytest.raises(AddressInUseError):
                check_free(f"127.0.0.1:{port}")
            server.stop(None).wait()
            assert not is_handed_out(port)


def can_bind(family: socket.AddressFamily, where: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family) as bound:
            bound.bind(where)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("other", ["::1", "2001:db8::1"])  # of this machine, if it has IPv6; of none
def test_a_name_is_held_at_all_its_addresses_that_are_this_machines(port: int, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = (socket.SOCK_STREAM, 6, "")
    is_here = can_bind(socket.AF_INET6, (other, 0, 0, 0))
    found = [(socket.AF_INET6, *stream, (other, port, 0, 0)), (socket.AF_INET, *stream, ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with reserve_ports([f"two-addresses:{port}"]):
        assert not is_handed_out(port)
        assert [can_bind(family, where) for family, *_, where in found] == [False, False]
    assert [can_bind(family, where) for family, *_, where in found] == [is_here, True]


def test_nothing_is_held_where_that_would_keep_the_server_out_too(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping = reserve_ports([f"127.0.0.1:{port}"])
    with monkeypatch.context() as without:
        without.setattr(socket.socket, "setsockopt", lambda *_: None)  # a socket without SO_REUSEADDR is what BSD makes of one with it
        keeping.__enter__()
    with contextlib.ExitStack() as last:
        last.push(keeping)
        assert is_handed_out(port)
        socket.create_server(("127.0.0.1", port)).close()


def test_nothing_stays_held_when_one_address_is_in_use(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressInUseError, match=taken), reserve_ports([f"127.0.0.1:{port}", taken]):
            pytest.fail("it went on")
    assert is_handed_out(port)


def test_a_unix_socket_and_a_port_of_the_systems_choice_need_no_holding(tmp_path: Path) -> None:
    with reserve_ports([f"unix:{tmp_path / 'socket'}", "127.0.0.1:0"]):
        assert not (tmp_path / "socket").exists()
