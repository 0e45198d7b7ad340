"""An address of this machine, reserved for a server that takes seconds to start."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

_USUAL_PORT = 9900
_PORTS_TRIED = 100
"""How many from the usual one on: the system hands out higher ones, to Ray among others, before the server listens."""
_HOST = "127.0.0.1"


@contextlib.contextmanager
def claimed_address() -> Iterator[str]:
    """Reserve the usual address of a policy server, or the next free one, as long as the block runs.

    The claim is a UDP socket of the port's number: two programs cannot have it, it ends with its program, and it does not block the server,
    which listens by TCP.

    Raises:
        OSError: No port of this machine is free.
    """
    for port in (*range(_USUAL_PORT, _USUAL_PORT + _PORTS_TRIED), 0):
        with contextlib.ExitStack() as claim:
            try:
                number = _free_port(port)
                claim.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind((_HOST, number))
            except OSError:
                continue
            yield f"{_HOST}:{number}"
            return
    raise OSError(f"expected a free port on {_HOST}, received none")


def _free_port(port: int) -> int:
    """Return the port if it is free, not even bound by a server that is starting; for 0 return a free one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((_HOST, port))
        return int(probe.getsockname()[1])
