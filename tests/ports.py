"""Ports of the loopback for servers that are told theirs: none that the system would hand out to anybody else meanwhile."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import random
import socket
import struct
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

DIRECT = [("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", "")]
"""Options of a test's own channel: what it talks to is on this machine, whatever proxy the environment names."""

_FIRST_TRIED = 15_000
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_IP_LOCAL_PORT_RANGE = 51
"""Option of ip(7), since Linux 6.3; Python 3.11 has no name for it."""


def _below_the_systems_choice() -> range:
    first_handed_out = int(_RANGE_FILE.read_text().split()[0]) if _RANGE_FILE.exists() else 32_768
    return range(_FIRST_TRIED, first_handed_out) if first_handed_out > _FIRST_TRIED + 1000 else range(_FIRST_TRIED, 65_000)


_CANDIDATES = _below_the_systems_choice()
_positions = itertools.count(random.Random(os.getpid()).randrange(len(_CANDIDATES)))
"""Where the next search begins: elsewhere in every process, and never twice at the same port in one."""
_TAKEN_FILE = Path(tempfile.gettempdir()) / f"policyserver-test-ports-{os.getuid()}"
_taking = threading.Lock()
_taken: list[int] = []
"""The descriptor of that file, of which this process has locked one byte for each port that it took, until it ends."""


def free_ports(count: int) -> list[int]:
    """Find ports in a row that nobody has bound: not Ray either, which opens dozens that the system chooses."""
    while True:
        ports = [_CANDIDATES[next(_positions) % len(_CANDIDATES)] for _ in range(count)]
        if ports == list(range(ports[0], ports[0] + count)) and all(_take(port) and _is_free(port) for port in ports):
            return ports


def _take(port: int) -> bool:
    """Keep a port from the other processes of tests, which would find it free until something listens there."""
    with _taking:
        if not _taken:
            _taken.append(os.open(_TAKEN_FILE, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            fcntl.lockf(_taken[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        return True


def free_address() -> str:
    """Return an address of the loopback that nobody has bound."""
    return f"127.0.0.1:{free_ports(1)[0]}"


def port_of_the_systems_choice() -> int:
    """Return a port that the system has handed out once, and could again; skip the test where it cannot be asked about one."""
    for _ in range(20):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        try:
            if is_handed_out(port):  # else another program has it by now
                return port
        except OSError as error:
            pytest.skip(f"this system cannot narrow its choice to one port: {error}")
    raise AssertionError("the system hands out none of the ports that it has just handed out")


def listens(process_id: int, port: int) -> bool:
    """Say whether a process, or one that it has started, listens on a port of this machine: it, and not somebody else."""
    return listener(process_id, port) is not None


def listener(process_id: int, port: int) -> psutil.Process | None:
    """Return the process that listens on a port of this machine: this one, or one that it has started; None where none does."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(process_id)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if any(at.status == psutil.CONN_LISTEN and at.laddr.port == port for at in each.net_connections("tcp")):
                    return each
    return None


def is_handed_out(port: int) -> bool:
    """Say whether the system would give this port to a socket that asks for any.

    Raises:
        OSError: The system cannot be asked that: it is not Linux, or older than 6.3.
    """
    with socket.socket() as asking:
        asking.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("=I", port << 16 | port))
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does for every server
        try:
            asking.bind(("127.0.0.1", 0))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return bool(asking.getsockname()[1] == port)


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
