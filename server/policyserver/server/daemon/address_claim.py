"""A claim on an address from the moment a daemon starts, seconds before its serving actor listens there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from policyserver.common.endpoints import parse_address
from policyserver.server.grpc_front.listen_address import UNIX, check_free, in_use, resolved

_PREFIX = "\0policy-server:"
"""Begins names in Linux's abstract namespace of unix sockets, which a network namespace has of its own as it has its ports."""


@contextlib.contextmanager
def claimed(address: str) -> Iterator[None]:
    """Keep other servers from starting on an address for as long as the block runs; the kernel ends the claim of a dead process.

    A port that a starting server holds looks free to the next one until somebody listens there. On systems other than Linux nothing but
    that is found out.

    Raises:
        AddressInUseError: Somebody listens there, or another server has claimed it.
        SettingsError: It is a unix socket that can't be made.
        OSError: It can't be bound for another reason.
    """
    check_free(address)
    with contextlib.ExitStack() as claims:
        for name in _names(parse_address(address)) if sys.platform == "linux" else ():
            claim = claims.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            try:
                claim.bind(_PREFIX + name)
            except OSError as error:
                raise in_use(address) from error
        yield


def _names(target: str) -> list[str]:
    """Name what the address stands for; a port that the system chooses needs no claim."""
    if target.startswith(UNIX):
        path = Path(target.removeprefix(UNIX))
        folder = os.stat(path.parent)
        return [hashlib.sha256(f"{folder.st_dev}:{folder.st_ino}/{path.name}".encode()).hexdigest()]  # for a name may be too long
    return [] if target.endswith(":0") else [f"{where[0]}:{where[1]}" for _, where in resolved(target)]
