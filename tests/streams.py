"""What tests see of the streams of gRPC's synchronous API: the objects that are left of them, and threads that can't be started."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc._channel
import pytest


class Streams:
    """The streams that begin while it is there."""

    def __init__(self) -> None:
        self._begun: list[weakref.ref[Any]] = []

    @property
    def begun(self) -> int:
        return len(self._begun)

    @property
    def left(self) -> int:
        """Number of gRPC's objects of them that are still there."""
        return sum(stream() is not None for stream in self._begun)

    @contextmanager
    def noted(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
        """Note each, and collect nothing meanwhile: what is gone went with its last name."""
        make = grpc._channel._MultiThreadedRendezvous.__init__

        def noting(made: Any, *arguments: Any) -> None:
            make(made, *arguments)
            self._begun.append(weakref.ref(made))

        monkeypatch.setattr(grpc._channel._MultiThreadedRendezvous, "__init__", noting)
        gc.disable()
        try:
            yield self
        finally:
            gc.enable()


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    with Streams().noted(monkeypatch) as noted:
        yield noted


@pytest.fixture
def fail_start(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], list[int]]:
    """Let one start of a thread fail: the one of that number, from 0, among those by threads of a name. Returns the numbers so far."""
    start = threading._start_new_thread  # type: ignore[attr-defined]

    def use(number: int, name: str) -> list[int]:
        seen: list[int] = []

        def starting(*arguments: Any) -> Any:
            if threading.current_thread().name == name:
                seen.append(len(seen))
                if seen[-1] == number:
                    raise RuntimeError("can't start new thread")
            return start(*arguments)

        monkeypatch.setattr(threading, "_start_new_thread", starting)
        return seen

    return use
