"""A line from the daemon (Ray's driver) to its serving actors that Ray does not provide.

Three things must reach a serving actor at once, although its only Ray thread may be waiting in `sample()` and the daemon's may be busy
with an update:
- that the daemon is draining;
- that the daemon is gone: an actor whose daemon was killed would hold the port for some seconds more, and the successor could not have it;
- the newest weights, when the actor was restarted: RLlib brings them after the update only, and until then nobody is served.

The link is a unix socket in a folder that only this user can enter. The daemon listens; each actor connects and a thread of it blocks in
`recv`. A message is one byte for its kind, eight for the length of what follows, and that. The end of the stream means that the daemon's
process ended, for the kernel closes its sockets however it died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_HEADER = struct.Struct("<cQ")
_DRAIN = _HEADER.pack(b"d", 0)
_SEND_TIMEOUT_S = 5.0


class DriverLink:
    """The daemon's end."""

    def __init__(self, path: Path) -> None:
        """Listen on a unix socket; its folder should be closed to other users."""
        self.path = path
        self._lock = threading.Lock()
        self._draining = False
        self._state = b""
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, name="driver-link", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Tell all actors, those that connect later too, to finish what they have and start nothing new."""
        with self._lock:
            self._draining = True
            for connection in self._connections:
                _send(connection, _DRAIN)

    def offer(self, state: dict[str, Any]) -> None:
        """Keep an env runner's state, weights included, for actors that connect from now on."""
        content = pickle.dumps(state, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._state = _HEADER.pack(b"s", len(content)) + content

    def close(self) -> None:
        """Cut the link: to the actors this is the daemon's end. A second call does nothing."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(_SEND_TIMEOUT_S)
            with self._lock:
                self._connections.append(connection)
                _send(connection, self._state + (_DRAIN if self._draining else b""))


def _send(connection: socket.socket, message: bytes) -> None:
    with contextlib.suppress(OSError):  # the actor died: there is nobody to tell
        connection.sendall(message)


def follow_driver(
    path: Path, on_drain: Callable[[], None], on_driver_gone: Callable[[], None], on_state: Callable[[dict[str, Any]], None]
) -> Callable[[], None]:
    """Connect an actor to its daemon.

    Args:
        path: The daemon's socket. If there is none (the daemon runs on another machine), nothing is followed: Ray itself ends an actor
            whose driver is gone, some seconds later.
        on_drain: Called from the link's own thread when the daemon starts to drain.
        on_driver_gone: Called from the link's own thread when the daemon's process has ended, however it did.
        on_state: Called from the link's own thread with the newest state, if the daemon has offered one.

    Returns:
        A function that ends the following; idempotent.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        logger.debug("no daemon to follow at %s: %s", path, error)
        return lambda: None
    stopped = threading.Event()

    def follow() -> None:
        while (message := _next_message(connection)) is not None:
            kind, content = message
            try:
                if kind == b"d":
                    on_drain()
                else:
                    on_state(pickle.loads(content))
            except Exception:  # e.g. the port is still taken; what fails here is no reason to think that the daemon is gone
                logger.exception("what the daemon sent could not be followed; RLlib brings weights and the order to listen again")
        if not stopped.is_set():
            on_driver_gone()

    thread = threading.Thread(target=follow, name="follow-driver", daemon=True)
    thread.start()

    def stop() -> None:
        stopped.set()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not thread:
            thread.join()
        connection.close()

    return stop


def _next_message(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """Receive the kind and content of one message; None when the stream has ended, be it in the middle of one."""
    with contextlib.suppress(OSError):
        if header := _receive(connection, _HEADER.size):
            kind, length = _HEADER.unpack(header)
            content = _receive(connection, length)
            if len(content) == length:
                return kind, content
    return None


def _receive(connection: socket.socket, length: int) -> bytes:
    """Receive exactly `length` bytes, or nothing at the end of the stream."""
    content = bytearray()
    while len(content) < length:
        part = connection.recv(min(length - len(content), 2**20))
        if not part:
            return b""
        content += part
    return bytes(content)


def leave_at_once() -> None:
    """End this process without ceremony: what an actor does when its daemon is gone and the port must be free."""
    os._exit(1)
