"""Clients that are dropped without `close()`, or that a fork copied into another process."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Iterable
from typing import NoReturn, Protocol

from policyserver.client.balancing import Balancer
from policyserver.client.errors import ForkedClientError


class TrackedClient(Protocol):
    """What a lifetime knows of its client."""

    def _leave_behind(self) -> Iterable[object]:
        """Put an `Inherited` in place of all parts, and return them: in another process than the client's."""


class Lifetime:
    """The life of one client, in the process that made it."""

    def __init__(self, client: TrackedClient, balancer: Balancer, target: str) -> None:
        """Watch a client with its connections; `target` is its address, for the warning."""
        self.process = os.getpid()
        self._dropped = weakref.finalize(client, _drop, balancer, target)
        self._dropped.atexit = False  # the end of the process ends its connections
        _clients.add(client)

    def end(self, client: TrackedClient) -> None:
        """Take note that the client was closed, or is that of another process."""
        self._dropped.detach()
        _clients.discard(client)


class Inherited:
    """Stands in place of all parts of a client that a fork copied here: its threads and its connection stayed behind."""

    def __init__(self, process: int) -> None:
        """Stand in for a client of `process`."""
        self._process = process

    def close(self) -> None:
        """Do nothing: the connections belong to the other process."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ForkedClientError(
            f"this client belongs to process {self._process}, and this is process {os.getpid()}, forked from it: expected a client made "
            "in a process of its own; start it with multiprocessing's spawn or forkserver, and make a PolicyClient there"
        )


def _drop(balancer: Balancer, target: str) -> None:
    """End the connections of a client to which no reference is left."""
    if balancer.abandon():
        warnings.warn(f"unclosed PolicyClient of {target}: close() it, or use it in a `with` block", ResourceWarning, stacklevel=2)


_clients: weakref.WeakSet[TrackedClient] = weakref.WeakSet()
_left_behind: list[object] = []
"""Parts of inherited clients, kept for ever: their destructors would end the other process's connections, or wait for missing threads."""


def _disown_all() -> None:
    """Make every client useless in a child. Takes no lock: its holder may be a thread that the child lacks."""
    for client in tuple(_clients):
        _left_behind.extend(client._leave_behind())


os.register_at_fork(after_in_child=_disown_all)
