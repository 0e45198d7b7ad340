"""A line from the daemon (Ray's driver) to its serving actors that Ray does not provide.

Four things must reach a serving actor at once, although its only Ray thread may be waiting in `sample()` and the daemon's may be busy
with an update:
- that the daemon is draining, and whether that is its end for good;
- that the daemon is gone: an actor whose daemon was killed would hold the port for some seconds more, and the successor could not have it;
- the newest weights, when the actor was restarted: RLlib brings them after the update only, and until then nobody is served;
- the question how serving goes, which is the one that is answered.

The link is a unix socket in a folder that only this user can enter. The daemon listens; each actor connects and a thread of it blocks in
`recv`. A message, either way, is one byte for its kind, eight for the length of what follows, and that. The end of the stream means that
the daemon's process ended, for the kernel closes its sockets however it died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_HEADER = struct.Struct("<cQ")
_DRAIN, _END = _HEADER.pack(b"d", 0), _HEADER.pack(b"e", 0)
_ASK = b"a"
_ANSWER = b"c"
_SEND_TIMEOUT_S = 5.0


class DriverLink:
    """The daemon's end."""

    def __init__(self, path: Path) -> None:
        """Listen on a unix socket; its folder should be closed to other users."""
        self.path = path
        self._lock = threading.RLock()  # a signal may drain in the middle of an `offer` of the same thread
        self._farewell = b""
        """What says that the daemon is draining, once it is."""
        self._state = b""
        self._connections: list[socket.socket] = []
        self._questions = 0
        self._unread: dict[socket.socket, bytearray] = {}
        """What came from each actor and makes no whole message yet; of the thread that asks."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, name="driver-link", daemon=True)
        self._thread.start()

    def drain(self, *, is_final: bool = False) -> None:
        """Tell all actors, those that connect later too, to finish what they have and start nothing new.

        Args:
            is_final: Nobody comes back by itself, which they are to tell their callers.
        """
        with self._lock:
            self._farewell = _END if is_final else _DRAIN
            for connection in self._connections:
                _send(connection, self._farewell)

    def offer(self, state: dict[str, Any]) -> None:
        """Keep an env runner's state, weights included, for actors that connect from now on."""
        content = pickle.dumps(state, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._state = _HEADER.pack(b"s", len(content)) + content

    def ask(self, timeout_s: float) -> list[Any]:
        """Ask all actors how serving goes. From one thread.

        Returns:
            What those say that answer in time, in the order in which they connected.
        """
        with self._lock:
            self._questions += 1
            question = pickle.dumps(self._questions)
            asked = [connection for connection in self._connections if _send(connection, _HEADER.pack(_ASK, len(question)) + question)]
        self._unread = {connection: self._unread.get(connection, bytearray()) for connection in asked}
        answers: dict[socket.socket, Any] = {}
        deadline = time.monotonic() + timeout_s
        while missing := [connection for connection in asked if connection not in answers]:
            try:
                readable, _, _ = select.select(missing, [], [], max(0.0, deadline - time.monotonic()))
            except (OSError, ValueError):  # the link was closed meanwhile
                return []
            if not readable:
                break
            for connection in readable:
                if not self._read(connection):
                    asked.remove(connection)
                    self._forget(connection)
                for number, answer in self._answers(connection):
                    if number == self._questions:  # else it comes too late
                        answers[connection] = answer
        return [answers[connection] for connection in asked if connection in answers]

    def _forget(self, connection: socket.socket) -> None:
        """Give the descriptor of an actor that died back."""
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)
        connection.close()

    def _read(self, connection: socket.socket) -> bool:
        """Receive what an actor sent; False if it is gone."""
        try:
            part = connection.recv(2**16)
        except OSError:
            return False
        self._unread[connection] += part
        return bool(part)

    def _answers(self, connection: socket.socket) -> Iterator[Any]:
        """Take the whole messages out of what was received."""
        unread = self._unread[connection]
        while len(unread) >= _HEADER.size:
            _, length = _HEADER.unpack_from(unread)
            end = _HEADER.size + length
            if len(unread) < end:
                return
            yield pickle.loads(bytes(unread[_HEADER.size : end]))
            del unread[:end]

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
                for other in [other for other in self._connections if _is_gone(other)]:  # as a rule that of the actor before this one
                    self._forget(other)
                self._connections.append(connection)
                _send(connection, self._state + self._farewell)


def _send(connection: socket.socket, message: bytes) -> bool:
    """Send a message; False if the actor died, for then there is nobody to tell."""
    try:
        connection.sendall(message)
    except OSError:
        return False
    return True


def _is_gone(connection: socket.socket) -> bool:
    """Tell whether the actor at the other end died."""
    try:
        is_readable = bool(select.select([connection], [], [], 0.0)[0])
        return is_readable and not connection.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):
        return True


def follow_driver(
    path: Path,
    on_drain: Callable[[bool], None],
    on_driver_gone: Callable[[], None],
    on_state: Callable[[dict[str, Any]], None],
    on_question: Callable[[], Any],
) -> Callable[[], None]:
    """Connect an actor to its daemon.

    Args:
        path: The daemon's socket. If there is none (the daemon runs on another machine), nothing is followed: Ray itself ends an actor
            whose driver is gone, some seconds later.
        on_drain: Called from the link's own thread when the daemon starts to drain, with whether that is final.
        on_driver_gone: Called from the link's own thread when the daemon's process has ended, however it did.
        on_state: Called from the link's own thread with the newest state, if the daemon has offered one.
        on_question: Called from the link's own thread when the daemon asks how serving goes. What it returns is pickled.

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
                if kind in (b"d", b"e"):
                    on_drain(kind == b"e")
                elif kind == _ASK:
                    answer = pickle.dumps((pickle.loads(content), on_question()))
                    connection.sendall(_HEADER.pack(_ANSWER, len(answer)) + answer)
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
