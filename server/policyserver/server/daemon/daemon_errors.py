"""What ends the daemon, or an iteration of it."""

from __future__ import annotations


class DaemonError(RuntimeError):
    """The daemon can't go on; the text says why."""


class DrainTimeoutError(BaseException):
    """The time to drain is over. Not an Exception, so that no handler on the way takes it for a failed iteration."""
