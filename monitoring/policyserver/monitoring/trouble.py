"""How a lasting trouble is logged: one line when it begins, one for each further kind of it, one when it is over."""

from __future__ import annotations

import logging
import time

_MOST_KINDS = 8
"""Kinds of one trouble that are logged. Further kinds are not, so that no peer decides how much is logged."""


class Trouble:
    """Logs the trouble of one thing, such as a database. Not thread-safe."""

    def __init__(self, logger: logging.Logger, subject: str) -> None:
        """Begin without trouble; each line will begin with `subject`."""
        self._logger = logger
        self._subject = subject
        self._kinds: set[str] = set()
        self._since = 0.0

    def occurred(self, kind: str, text: str) -> None:
        """Log a trouble, unless its kind was logged since the trouble began; texts may hold numbers that change each time."""
        if not self._kinds:
            self._since = time.monotonic()
        if kind in self._kinds or len(self._kinds) >= _MOST_KINDS:
            return
        self._kinds.add(kind)
        self._logger.warning("%s: %s", self._subject, text)

    def is_over(self, text: str) -> None:
        """Log the end of the trouble, if there was any, and how long it took."""
        if self._kinds:
            self._kinds.clear()
            self._logger.warning("%s: %s, after %.1f s of trouble", self._subject, text, time.monotonic() - self._since)

    @property
    def lasts(self) -> bool:
        """Whether there is trouble now."""
        return bool(self._kinds)
