"""The serving runners that a server lists: which of them this client can reach, and which gets an episode where it knows no better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyserver.common.endpoints import parse_address

_UNIX = "unix:"
_TURN = 0.6180339887498949
"""Share of a turn from one choice to the next, the golden section: however few the choices, they fall evenly."""
_MOST_MOVED = 0.5
"""Largest share of its episodes that a client moves to a runner with less to do."""
_LEAST_DIFFERENCE = 2
"""Episodes by which two runners must differ, for what they said is some seconds old."""


def reachable(given: str, listed: Sequence[str]) -> tuple[str, ...]:
    """Find the targets of all serving runners as seen from here, in the listed order.

    Args:
        given: the target that reaches one of them.
        listed: what that one says of all.

    Returns:
        The targets; none if the others cannot be told.
    """
    return tuple(by_address(given, listed).values())


def by_address(given: str, listed: Sequence[str]) -> dict[str, str]:
    """Find, as `reachable` does, the target of each listed address; without those that cannot be reached.

    A server knows only what it listens on: 0.0.0.0, a name inside its container, a folder that is mounted elsewhere here. So if all runners
    share one host (or folder), it is the one that this client was given. If the given port (or file name) is not among the listed ones,
    there is a tunnel or a proxy in between, and the listed ports mean nothing here, or belong to another server.
    """
    try:
        targets = {address: parse_address(address) for address in listed}
    except ValueError:
        return {}
    alike = {address: target for address, target in targets.items() if target.startswith(_UNIX) == given.startswith(_UNIX)}
    place, name = _split(given)
    parts = [_split(target) for target in alike.values()]
    if name in [each[1] for each in parts] and len({each[0] for each in parts}) == 1:
        return {address: place + other for address, (_, other) in zip(alike, parts, strict=True)}
    return alike if given in alike.values() else {}


class Preference:
    """Which of several runners that have equally many episodes of this client gets the next one.

    The one listed first, unless it has more to do for other clients. Then a share of the episodes goes to the one with the least: the
    larger, the more they differ, and half at most. All clients see the same figures, some seconds late: if each went where there is least
    to do, all would go there at once, and back again.
    """

    def __init__(self) -> None:
        """Begin without figures."""
        self.loads: Mapping[str, int] = {}
        """Episodes of all clients that each runner holds, by target, as the server said last."""
        self._turn = 0.0

    def begin(self, client_number: int) -> None:
        """Begin elsewhere than other clients."""
        self._turn = client_number * _TURN % 1.0

    def choose(self, targets: Sequence[str]) -> int:
        """Return which of the targets, in the listed order, gets the next episode."""
        loads = [self.loads.get(target) for target in targets]
        first, known = loads[0], [load for load in loads if load is not None]
        if first is None or first - min(known) < _LEAST_DIFFERENCE:
            return 0
        least = min(known)
        moved = _MOST_MOVED * (1.0 - ((least + 1) / (first + 1)) ** 0.5)
        self._turn = (self._turn + _TURN) % 1.0
        return loads.index(least) if self._turn < moved else 0


def _split(target: str) -> tuple[str, str]:
    """Split into host and port, or folder and file name."""
    separator = "/" if target.startswith(_UNIX) else ":"
    scheme = _UNIX if target.startswith(_UNIX) else ""
    folder, slash, name = target.removeprefix(scheme).rpartition(separator)
    return scheme + folder + slash, name
