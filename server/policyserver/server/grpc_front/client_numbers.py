"""Numbers by which clients that do the same can tell themselves apart, such as pipelines with one seed."""

from __future__ import annotations

_LARGEST_CLAIM = 2**53
"""A larger claim is answered but not remembered, so that the numbers do not run out."""


class ClientNumbers:
    """Counts clients: each gets a new number, in steps that keep it apart from the numbers of the serving processes beside this one."""

    def __init__(self, first: int, step: int) -> None:
        """Begin with `first`; the serving processes beside this one begin with others below `step`."""
        self._next = first
        self._step = step

    def number(self, claimed: int | None) -> int:
        """Return a client's number.

        Args:
            claimed: What the client has from an earlier handshake, perhaps with this process's predecessor, if it has one.
        """
        if claimed is None:
            number, self._next = self._next, self._next + self._step
            return number
        if self._next <= claimed <= _LARGEST_CLAIM:
            self._next += (claimed - self._next) // self._step * self._step + self._step
        return claimed
