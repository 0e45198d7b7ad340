"""An address is parsed into its target and known to be local or not, what is none is refused, and the flags are those of the protocol."""

from __future__ import annotations

import socket

import pytest

from policyserver.common.endpoints import is_local, parse_address, strays
from policyserver.common.flags import StepFlag
from policyserver.v1 import policy_service_pb2 as pb


@pytest.mark.parametrize(
    ("address", "target", "local"),
    [
        ("http://localhost:9900", "localhost:9900", True),
        ("http://127.0.0.1:9900/", "127.0.0.1:9900", True),
        ("127.3.2.1:1", "127.3.2.1:1", True),
        ("[::1]:9900", "[::1]:9900", True),
        ("unix:/run/policy.sock", "unix:/run/policy.sock", True),
        ("0.0.0.0:9900", "0.0.0.0:9900", False),
        ("https://trading.example:443", "trading.example:443", False),
        ("localhost.example:1", "localhost.example:1", False),
        ("[2001:db8::1]:9", "[2001:db8::1]:9", False),
    ],
)
def test_an_address_gives_its_target_and_whether_it_stays_on_the_machine(address: str, target: str, local: bool) -> None:
    assert parse_address(address) == target
    assert is_local(target) is local


@pytest.mark.parametrize(
    "address",
    ["", "localhost", "host:", ":9900", "host:70000", "ftp://host:1", "host:1/path", "unix:", "http://u@host:1"],
)
def test_anything_else_is_refused_with_what_was_expected(address: str) -> None:
    with pytest.raises(ValueError, match="expected 'http://host:port'"):
        parse_address(address)


def test_localhost_that_is_another_machine_by_the_hosts_file_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert strays("localhost:9900") == ""
    here, away = (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)), (socket.AF_INET, 1, 6, "", ("192.0.2.7", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [here, away])
    assert strays("localhost:9900") == "192.0.2.7"
    assert [strays(target) for target in ("127.0.0.1:9900", "unix:/run/localhost", "trading.example:9900")] == ["", "", ""]


def test_flags_mirror_the_protocol() -> None:
    mirrored = {f"STEP_FLAG_{flag.name}": flag.value for flag in StepFlag}
    assert mirrored == {name: value for name, value in pb.StepFlag.items() if value}


def test_a_path_that_no_unix_socket_can_have_is_refused() -> None:
    assert parse_address(f"unix:/{'x' * 100}") == f"unix:/{'x' * 100}"
    with pytest.raises(ValueError, match=r"address: expected a path of at most 10[37] bytes for a unix socket, received '/xxx"):
        parse_address(f"unix:/{'x' * 107}")
