"""Streams of gRPC's synchronous API: how one begins and ends without anything being left that waits for ever.

A stream has two threads of gRPC's own. Two moments of their lives are ours to mind:

- The first call of a channel starts one of them, each stream the other. If a thread can't be started, gRPC has begun a call whose events
  no thread takes: what closes or frees the channel waits for ever, and its later calls are never answered.
- They are daemon threads: at the end of the process they stop wherever they are, and keep the locks that they hold. The destructor of a
  stream's object takes such a lock. So an object that lives until then may keep the process from ending.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

_THREADS = 2


class StreamChannel:
    """A channel whose streams are begun and read by one thread; any thread may make unary calls through `channel`."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Take over a channel on which no call was made."""
        self.channel = channel
        self.is_spoilt = False
        """A thread could not be started as a stream began: make another channel. Unary calls still work."""

    def begin(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Begin a stream by calling a method of the channel's stub. Returns gRPC's object of it; see `forget`.

        Raises:
            RuntimeError: a thread can't be started. What else the method raises.
        """
        _try_threads()
        try:
            return method(*arguments, **options)
        except (RuntimeError, MemoryError):  # that were there a moment ago
            self.is_spoilt = True
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.channel))  # so that it is freed never, not even at the interpreter's end
            raise

    def close(self) -> None:
        """End what goes on on the channel, and close it. Idempotent. Where it is spoilt its connection stays until the process ends."""
        if not self.is_spoilt:
            self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def forget(error: BaseException) -> None:
    """Let go of the frames that an error came through, once it is dealt with, so that the stream's object goes with its last name.

    gRPC's error of a stream is that object itself. Its traceback holds frames in which it has names, so it would live until the collector
    finds it. The reader of a stream drops its own names of it, too, those in attributes first.
    """
    error.__traceback__ = None


def _try_threads() -> None:
    """Start as many threads as gRPC will, and end them: if that fails, it fails before a call has begun.

    Raises:
        RuntimeError: they can't be started.
    """
    go_on = threading.Event()
    started = []
    try:
        for _ in range(_THREADS):
            thread = threading.Thread(target=go_on.wait, name="stream-threads", daemon=True)
            thread.start()
            started.append(thread)
    finally:
        go_on.set()
        for thread in started:
            thread.join()
