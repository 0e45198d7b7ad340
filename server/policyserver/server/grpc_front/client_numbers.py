"""Numbers by which clients that do the same can tell themselves apart, such as pipelines with one seed."""

from __future__ import annotations

_LARGEST_CLAIM = 2**53
"""Above it a claim is answered but not remembered: nobody counts that far, and the numbers have an end."""


class ClientNumbers:
    """Counts clients: each gets a number that nobody had here, in steps that keep it apart from those of the serving processes beside."""

    def __init__(self, first: int, step: int) -> None:
        """Begin with `first`; the serving processes beside this one begin with others below `step`."""
        self._next = first
        self._step = step

    def number(self, claimed: int | None) -> int:
        """Return a client's number.

        Args:
            claimed: What the client has from an earlier handshake, maybe with this process's predecessor; None: nothing.
        """
        if claimed is None:
            number, self._next = self._next, self._next + self._step
            return number
        if self._next <= claimed <= _LARGEST_CLAIM:
            self._next += (claimed - self._next) // self._step * self._step + self._step
        return claimed
