"""One serving actor that is connected to a `DriverLink`: a thread sends what waits for it, another one reads what it answers.

So an actor that does not read holds up neither who sends nor the other actors, and what was sent in part is always finished. What waits is
bounded: an actor that takes nothing for too long, or for which too much waits, is ended, so that Ray starts another in its place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import struct
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

logger = logging.getLogger(__name__)

STUCK_S = 300.0
"""How long an actor may take nothing of what waits for it: longer than it takes to load policies on a machine under load."""
_MOST_WAITING = 10_000
"""Messages; a daemon sends some in a second."""
_FLUSH_S = 1.0
"""Longest time that what waits at the end of the link is given to be sent."""


class LinkedActor:
    """The daemon's side of one connection."""

    def __init__(
        self,
        accepted: socket.socket,
        stuck_s: float,
        take: Callable[[LinkedActor, bytes], None],
        forget: Callable[[LinkedActor], None],
    ) -> None:
        """Take a connection; nothing is sent or read before `start`.

        Args:
            accepted: The connection, which is closed by this.
            stuck_s: How long the actor may take nothing of what waits for it before it is ended.
            take: Called with each message of the actor's, in a thread of this.
            forget: Called once, when the connection has ended and is closed, likewise.
        """
        self._stuck_s = stuck_s
        self._take, self._forget = take, forget
        self._line = accepted
        self._connection = Connection(os.dup(accepted.fileno()))
        self._process_id, self._process = _process_of(accepted)
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # whose `put` a signal handler may call
        self._sender = threading.Thread(target=self._send_all, name="driver-link-send", daemon=True)
        self._reader = threading.Thread(target=self._read_all, name="driver-link-read", daemon=True)

    def start(self) -> None:
        """Begin to send and to read.

        Raises:
            RuntimeError: A thread can't be started; the connection is closed, at which the actor leaves.
        """
        limit = struct.pack("ll", int(self._stuck_s), int(self._stuck_s % 1 * 1e6))
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            self._sender.start()
            self._reader.start()
        except RuntimeError:
            self._waiting.put(None)
            self._shut_down()
            self._release()
            raise

    def send(self, message: bytes) -> None:
        """Have a message sent after those that wait. Returns at once; from any thread, and from a signal handler."""
        if self._waiting.qsize() >= _MOST_WAITING:
            self._end(f"has not read {_MOST_WAITING} messages of the daemon's")
        else:
            self._waiting.put(message)

    def close(self) -> None:
        """End the connection once what waits is sent, or soon. A second call does nothing."""
        self._waiting.put(None)
        self._reader.join(_FLUSH_S)
        self._shut_down()
        self._reader.join()

    def _send_all(self) -> None:
        try:
            while (message := self._waiting.get()) is not None:
                self._connection.send_bytes(message)
        except BlockingIOError:
            self._end(f"has taken nothing of what the daemon says for {self._stuck_s:g} s")
        except OSError as error:  # it died, as the reader notices, too
            logger.debug("process %s takes nothing any more: %s", self._process_id, error)
        self._shut_down()

    def _read_all(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                self._take(self, self._connection.recv_bytes())
        self._waiting.put(None)
        self._shut_down()
        self._release()
        self._forget(self)

    def _release(self) -> None:
        """Close all descriptors."""
        if self._sender.ident is not None:
            self._sender.join()  # only then is nothing sent to a descriptor that is another's by now
        self._connection.close()
        self._line.close()
        if self._process is not None:
            os.close(self._process)

    def _shut_down(self) -> None:
        """Have both threads end, and the actor read the end of the stream, at which it leaves."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def _end(self, why: str) -> None:
        """End the actor's process, which may be beyond reading that it should; one that serves in the daemon's own only reads it."""
        logger.error("the serving actor of process %s %s: it is ended, and another one starts in its place", self._process_id, why)
        if self._process is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
        self._shut_down()


def _process_of(accepted: socket.socket) -> tuple[int | None, int | None]:
    """Return the number of the process that has connected, and what ends it and no later one of that number, if it is another process.

    Either is None where the system does not say.
    """
    try:
        number: int = struct.unpack("3i", accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
    except (AttributeError, OSError):
        return None, None
    if number == os.getpid():
        return number, None
    try:
        return number, os.pidfd_open(number)
    except (AttributeError, OSError):
        return number, None
