"""Ended episodes of which the daemon may not know: an answer to it can be lost, so they are told of until it says that it knows."""

from __future__ import annotations

from policyserver.server.episodes.ended_episodes import MOST_WAITING, EndedEpisode, EndedEpisodes


class UntoldEpisodes:
    """Numbers the ended episodes of a serving process from 0. Owned by the loop thread.

    Overflow policy: the oldest are dropped, and leave a gap in the numbers.
    """

    def __init__(self, ended: EndedEpisodes) -> None:
        """Begin with none; `ended` gives each that ends once."""
        self._ended = ended
        self._untold: list[EndedEpisode] = []
        self._first = 0
        """Number of the oldest that is kept."""

    @property
    def count(self) -> int:
        """Episodes that ended and of which the daemon has not said that it knows them."""
        return len(self._untold) + self._ended.waiting

    def take(self, known: int | None) -> tuple[int, list[EndedEpisode], int]:
        """Return the number of the first episode, the episodes, and how many are missing among them.

        Args:
            known: How many episodes, from the first of all on, the daemon knows. Unset: what was taken before is known.
        """
        told = len(self._untold) if known is None else min(max(known - self._first, 0), len(self._untold))
        del self._untold[:told]
        self._first += told
        ended, missing = self._ended.take()
        if missing:  # those that are kept are older than what is missing
            self._first += len(self._untold) + missing
            self._untold.clear()
        self._untold += ended
        too_many = max(len(self._untold) - 2 * MOST_WAITING, 0)
        del self._untold[:too_many]
        self._first += too_many
        return self._first, list(self._untold), missing
