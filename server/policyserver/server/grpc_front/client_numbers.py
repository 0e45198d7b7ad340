"""Numbers by which clients that do the same can tell themselves apart, such as pipelines with one seed."""

from __future__ import annotations

RANGE = 2**32
"""Numbers that the serving processes which a daemon starts with share; each that comes later has as many to itself."""
_LARGEST_CLAIM = RANGE // 2
"""Of a range. A larger claim is answered but not remembered, so that the numbers do not run out."""


def numbers_of(index: int, count: int) -> tuple[int, int]:
    """Return the first number of one serving process and the step to the next.

    Args:
        index: Its place among all, from 0.
        count: With how many the daemon began.
    """
    return (index, count) if index < count else (index * RANGE, 1)


class ClientNumbers:
    """Counts clients: each gets a new number, apart from the numbers of the serving processes beside this one by its step or its range."""

    def __init__(self, first: int, step: int) -> None:
        """Begin with `first`; the serving processes beside this one begin with others below `step`."""
        self._next = first
        self._step = step
        self._range = first // RANGE

    def number(self, claimed: int | None) -> int:
        """Return a client's number.

        Args:
            claimed: What the client has from an earlier handshake, perhaps with this process's predecessor, if it has one.
        """
        if claimed is None:
            number, self._next = self._next, self._next + self._step
            return number
        if self._next <= claimed <= self._range * RANGE + _LARGEST_CLAIM:  # a larger one is of another process, or made up
            self._next += (claimed - self._next) // self._step * self._step + self._step
        return claimed
