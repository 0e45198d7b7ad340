"""What becomes of clients that are dropped without `close()`, or that a fork brought into another process."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Iterable
from typing import NoReturn, Protocol

from policyserver.client.balancing import Balancer
from policyserver.client.errors import ForkedClientError


class TrackedClient(Protocol):
    """A client, as far as its lifetime knows it."""

    def _leave_behind(self) -> Iterable[object]:
        """Put an `Inherited` in place of all parts, and return them: in another process than the client's."""


class Lifetime:
    """The life of one client, in the process that made it."""

    def __init__(self, client: TrackedClient, balancer: Balancer, target: str) -> None:
        """Begin.

        Args:
            client: whose life it is.
            balancer: the client's connections.
            target: the address it was given, for the warning.
        """
        self.process = os.getpid()
        self._dropped = weakref.finalize(client, _drop, balancer, target)
        self._dropped.atexit = False  # the end of the process ends its connections
        _clients.add(client)

    def end(self, client: TrackedClient) -> None:
        """Take note that the client was closed, or is that of another process."""
        self._dropped.detach()
        _clients.discard(client)


class Inherited:
    """Stands in place of all parts of a client that a fork brought here: its threads and its connection stayed behind."""

    def __init__(self, process: int) -> None:
        """Take note of whose the client is.

        Args:
            process: number of the process that made it.
        """
        self._process = process

    def close(self) -> None:
        """Do nothing: what there is to close is the other process's."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ForkedClientError(
            f"this client belongs to process {self._process}, and this is process {os.getpid()}, forked from it: expected a client of its "
            "own in each process; make a new PolicyClient here"
        )


def _drop(balancer: Balancer, target: str) -> None:
    """End the connections of a client that nobody has any more."""
    if balancer.abandon():
        warnings.warn(f"unclosed PolicyClient of {target}: close() it, or use it in a `with` block", ResourceWarning, stacklevel=2)


_clients: weakref.WeakSet[TrackedClient] = weakref.WeakSet()
_left_behind: list[object] = []
"""Parts of inherited clients. Taken apart in this process they would end connections that are not its own, or wait for threads it lacks."""


def _disown_all() -> None:
    """Make every client useless in a child. Takes no lock: its holder may be a thread that the child lacks."""
    for client in tuple(_clients):
        _left_behind.extend(client._leave_behind())


os.register_at_fork(after_in_child=_disown_all)
