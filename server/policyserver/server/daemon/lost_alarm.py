"""Raises the end of a time limit again where Python could not: the alarm may come in a destructor, or in what is called after a fork."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

from policyserver.server.daemon.daemon_errors import DrainTimeoutError

_AGAIN_S = 0.01


@contextlib.contextmanager
def raised_again() -> Iterator[None]:
    """Have an alarm whose DrainTimeoutError was ignored come again, for as long as the block runs. Call it in the main thread.

    Python prints an exception that leaves such a function, and goes on: the limit would be lost.
    """
    before = sys.unraisablehook

    def again(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, DrainTimeoutError):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            before(unraisable)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
