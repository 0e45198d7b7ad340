"""What clients are told of the serving processes of a daemon: where they are and how busy, in the handshake and when it changes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Mapping

from policyserver.v1 import policy_service_pb2 as pb

LOADS_S = 5.0
"""Least time between two messages about loads alone; an address that comes or goes is told at once."""
_NOTEWORTHY = 0.125
"""Change of a load, as a share of all, that is told."""

Say = Callable[[pb.StepResponse], None]


class Endpoints:
    """Tells them. Owned by the loop thread."""

    def __init__(self, listed: Callable[[], list[str]], loads: Callable[[], Mapping[str, int]] = dict) -> None:
        """Take what returns the addresses, and the episodes open there, of those of which that is known."""
        self._listed = listed
        self._loads = loads
        self._turns = itertools.count()
        self._streams: dict[Say, int] = {}
        """The streams that are told, with the turn of each."""
        self._told: tuple[list[str], Mapping[str, int]] = ([], {})
        self._told_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def turn(self) -> int:
        """Return a number for a client that comes: by it each begins its list with another address, if it knows no better."""
        return next(self._turns)

    def addresses(self, turn: int = 0) -> list[str]:
        """Return the addresses, as a client of that turn is told them."""
        addresses = self._listed()
        first = turn % max(len(addresses), 1)
        return addresses[first:] + addresses[:first]

    def loads(self) -> list[pb.EndpointLoad]:
        """Return how busy they are. One process alone has nothing to choose from."""
        addresses, loads = self._listed(), self._loads()
        if len(addresses) < 2:
            return []
        return [pb.EndpointLoad(address=address, episodes_open=loads[address]) for address in addresses if address in loads]

    def follow(self, say: Say, turn: int, told: Collection[str]) -> None:
        """Have a stream told from now on, whose client was told of some addresses when it came."""
        if not self._streams:
            self._note()
        self._streams[say] = turn
        if set(told) != set(self._listed()):
            say(self._message(turn, self.loads()))

    def forget(self, say: Say) -> None:
        """Have a stream told no more, if it was told."""
        self._streams.pop(say, None)

    def look(self) -> None:
        """Tell all streams, if there is something new to tell."""
        if not self._streams:
            return
        addresses, loads = self._told
        if self._listed() == addresses:
            if not _is_noteworthy(loads, self._loads()):
                return
            if (wait_s := self._told_s + LOADS_S - time.monotonic()) > 0:
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(wait_s, self._look_again)
                return
        self._note()
        known = self.loads()
        for say, turn in self._streams.items():
            say(self._message(turn, known))

    def _message(self, turn: int, loads: list[pb.EndpointLoad]) -> pb.StepResponse:
        return pb.StepResponse(endpoints=pb.Endpoints(addresses=self.addresses(turn), loads=loads))

    def _look_again(self) -> None:
        self._timer = None
        self.look()

    def _note(self) -> None:
        self._told, self._told_s = (self._listed(), dict(self._loads())), time.monotonic()


def _is_noteworthy(before: Mapping[str, int], after: Mapping[str, int]) -> bool:
    """Tell whether a load has changed by a part of all of them, or by two episodes if that is more."""
    least = max(2.0, _NOTEWORTHY * sum(after.values()))
    return len(after) > 1 and any(abs(load - before.get(address, 0)) >= least for address, load in after.items())
