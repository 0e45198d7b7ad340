"""How a trouble that lasts is logged: one line when it begins, one for each other kind that it takes, one when it is over."""

from __future__ import annotations

import logging
import time

_MOST_KINDS = 8
"""Kinds of one trouble that are logged; further ones are not, so that no other side decides how much is logged."""


class Trouble:
    """One thing that may be in trouble, such as a database. Not thread-safe."""

    def __init__(self, logger: logging.Logger, subject: str) -> None:
        """Be without trouble.

        Args:
            logger: Where the lines go.
            subject: What each line begins with.
        """
        self._logger = logger
        self._subject = subject
        self._kinds: set[str] = set()
        self._since = 0.0

    def occurred(self, kind: str, text: str) -> None:
        """Log a trouble whose kind is new since there was none.

        Args:
            kind: What tells it from another; texts may hold numbers that change each time.
            text: What is wrong, and what becomes of it meanwhile.
        """
        if not self._kinds:
            self._since = time.monotonic()
        if kind in self._kinds or len(self._kinds) >= _MOST_KINDS:
            return
        self._kinds.add(kind)
        self._logger.warning("%s: %s", self._subject, text)

    def is_over(self, text: str) -> None:
        """Log the end of the trouble and how long it took; nothing if there was none."""
        if self._kinds:
            self._kinds.clear()
            self._logger.warning("%s: %s, after %.1f s of trouble", self._subject, text, time.monotonic() - self._since)

    @property
    def lasts(self) -> bool:
        """Whether there is trouble now."""
        return bool(self._kinds)
