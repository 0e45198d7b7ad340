"""What ends the daemon, or an iteration of it."""

from __future__ import annotations

import re

_LONGEST = 300
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class DaemonError(RuntimeError):
    """The daemon can't go on; the text says why."""


class DrainTimeoutError(BaseException):
    """The time to drain is over. Not an Exception, so that no handler on the way takes it for a failed iteration."""


def last_line(error: BaseException) -> str:
    """Return the last line of an error, 300 characters at most: of one that Ray brings from another process, that process's own error."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
