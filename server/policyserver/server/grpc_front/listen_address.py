"""The addresses that a server listens on: those of several actors, whether they are free, and how they stay so until they are used."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from policyserver.common.endpoints import parse_address
from policyserver.common.settings import SettingsError

UNIX = "unix:"
"""Begins the address of a unix socket."""
_LAST_PORT = 65_535
_CLAIM_PREFIX = "\0policy-server:"
"""Begins names in Linux's abstract namespace of unix sockets, which a network namespace has of its own as it has its ports."""
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of an address that a name has and this machine lacks, such as the IPv6 address of `localhost` on a machine without IPv6."""


class AddressInUseError(OSError):
    """Another process listens on the address."""


def address_of(address: str, number: int) -> str:
    """Return the address of one of several serving instances: the configured one, then its port plus 1, 2, ..., or its path and `.1`, `.2`.

    Args:
        address: The configured address.
        number: Which instance, from 0.

    Raises:
        SettingsError: There is no such port, or the path is too long for a unix socket.
    """
    target = parse_address(address)
    if target.startswith(UNIX):
        return _numbered_socket(target, number) if number else target
    host, _, port = target.rpartition(":")
    if int(port) + number > _LAST_PORT:
        raise SettingsError(
            "listen.address",
            "",
            f"expected a port of at most {_LAST_PORT - number}, for each serving actor takes the next one, received {address}; choose a "
            "lower one, or fewer actors (algorithm.env_runners.num_env_runners)",
        )
    return f"{host}:{int(port) + number}" if int(port) else target


def _numbered_socket(target: str, number: int) -> str:
    try:
        return parse_address(f"{target}.{number}")
    except ValueError as error:
        text = f"{error}; each serving actor has a socket of its own, so choose a shorter path, or fewer actors"
        raise SettingsError("listen.address", "", text) from error


def check_free(address: str) -> None:
    """Refuse an address on which another process listens already.

    Raises:
        AddressInUseError: Names the address.
        SettingsError: If it is a unix socket that can't be made: its folder is missing or can't be written, or something else lies
            there.
        OSError: If the address can't be bound for another reason, e.g. its host isn't one of this machine.
    """
    target = parse_address(address)
    if not target.startswith(UNIX):
        with _bound(target, address):
            return
    path = Path(target.removeprefix(UNIX))
    _check_socket_path(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise in_use(address)


def _check_socket_path(path: Path) -> None:
    """Refuse a path at which no unix socket can be made."""
    key = "listen.address"
    folder = path.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "can't be written" if folder.is_dir() else "is no folder"
        raise SettingsError(key, "", f"expected a unix socket in a folder that can be written, received {path}: {folder} {what}")
    if path.exists() and not path.is_socket():
        raise SettingsError(key, "", f"expected a unix socket or nothing at {path}, received another kind of file")


@contextlib.contextmanager
def reserve_ports(addresses: Sequence[str]) -> Iterator[None]:
    """Keep the ports of addresses for this process's children for as long as the block runs.

    A start takes seconds, in which Ray opens dozens of ports that the system chooses: without this it may choose a configured one, and
    likewise while a serving actor that died is replaced. A bound socket that doesn't listen takes the port out of the system's choice,
    and one that asks for this very port can still listen on it (SO_REUSEADDR as in Linux's socket(7)); where it can't, nothing is kept.
    Unix sockets and ports that the system chooses need no keeping.

    Raises:
        AddressInUseError: Names the first address on which another process listens.
        OSError: If an address can't be bound for another reason.
    """
    with contextlib.ExitStack() as kept:
        for address in addresses:
            check_free(address)
            target = parse_address(address)
            if not target.startswith(UNIX) and not target.endswith(":0"):
                _keep(target, address, kept)
        yield


@contextlib.contextmanager
def claimed(address: str) -> Iterator[None]:
    """Keep other servers from starting on an address for as long as the block runs; the kernel ends the claim of a dead process.

    A serving actor listens seconds after its daemon started, and until then its port looks free to the next daemon. On systems other
    than Linux only a server that listens is found.

    Raises:
        AddressInUseError: Another process listens there, or another server has claimed it.
        SettingsError: It is a unix socket that can't be made.
        OSError: It can't be bound for another reason.
    """
    check_free(address)
    with contextlib.ExitStack() as claims:
        for name in _names(parse_address(address)) if sys.platform == "linux" else ():
            claim = claims.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            try:
                claim.bind(_CLAIM_PREFIX + name)
            except OSError as error:
                raise in_use(address) from error
        yield


@contextlib.contextmanager
def first_free(addresses: Sequence[str]) -> Iterator[str]:
    """Claim the first of some addresses that no other process has, and keep it claimed for as long as the block runs; yields it.

    Raises:
        AddressInUseError: Others have all of them; names the first.
        OSError: See `claimed`.
    """
    with contextlib.ExitStack() as claim:
        for address in addresses:
            with contextlib.suppress(AddressInUseError):
                claim.enter_context(claimed(address))
                break
        else:
            raise in_use(addresses[0])
        yield address


def _names(target: str) -> list[str]:
    """Name what the address stands for; a port that the system chooses needs no claim."""
    if target.startswith(UNIX):
        path = Path(target.removeprefix(UNIX))
        folder = os.stat(path.parent)
        return [hashlib.sha256(f"{folder.st_dev}:{folder.st_ino}/{path.name}".encode()).hexdigest()]  # for a name may be too long
    return [] if target.endswith(":0") else [f"{where[0]}:{where[1]}" for _, where in resolved(target)]


def _keep(target: str, address: str, kept: contextlib.ExitStack) -> None:
    holders = _bound(target, address)
    try:
        _bound(target, address).close()
    except AddressInUseError:  # by the holders: BSD's SO_REUSEADDR is for what lingers alone
        holders.close()
    else:
        kept.enter_context(holders)


def _bound(target: str, address: str) -> contextlib.ExitStack:
    """Bind a socket to each address that the target's name stands for, and don't listen; returns what closes them."""
    found = resolved(target)
    with contextlib.ExitStack() as opened:
        missing: list[OSError] = []
        for family, where in found:
            try:
                bound = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger after their server are no obstacle
                if family == socket.AF_INET6 and len(found) > 1:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4's are another socket's
                bound.bind(where)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise in_use(address) from error
                missing.append(error)
                if error.errno not in _NOT_HERE or len(missing) == len(found):
                    raise OSError(error.errno, f"listen.address: {address} can't be bound: {error.strerror}") from error
        return opened.pop_all()


def resolved(target: str) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """Find the addresses, with their families, that the name in HOST:PORT stands for."""
    host, _, port = target.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, where) for family, _, _, _, where in found))


def in_use(address: str) -> AddressInUseError:
    """Make the error of an address that another process has."""
    return AddressInUseError(
        errno.EADDRINUSE, f"listen.address: {address} is in use by another process; stop that one or choose another address"
    )
