"""Keeps the threads of a client on one processor core, where the program wants that."""

from __future__ import annotations

import logging
import os
import sys
import threading

__all__ = ["ProcessorCore"]

_log = logging.getLogger(__name__)


class ProcessorCore:
    """The core that a client's threads share, if they do.

    Python runs one thread at a time. A thread that is woken while another core has nothing to do moves there, for a wake-up that takes
    several times as long and a cold cache; on the core of the one that woke it, it goes on at once.
    """

    def __init__(self, core: int | None) -> None:
        """Choose the core.

        Args:
            core: its number; None leaves every thread where the system puts it.

        Raises:
            ValueError: this process may not use that core, or the system binds no threads (sched_setaffinity(2): Linux).
        """
        self._core = core
        self._bound = threading.local()
        if core is None:
            return
        if sys.platform != "linux":
            raise ValueError(f"callers_core: expected None on {sys.platform}, which binds no threads, received {core}")
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {core})  # what this thread may use now says nothing: another client may have bound it
        except (OSError, OverflowError) as error:
            raise ValueError(f"callers_core: expected a core that this process may use, received {core}: {error}") from error
        os.sched_setaffinity(0, before)

    def bind(self) -> None:
        """Keep the calling thread on the core from now on. A second call of it does nothing."""
        if self._core is None or sys.platform != "linux" or hasattr(self._bound, "core"):
            return
        self._bound.core = self._core
        try:
            os.sched_setaffinity(0, {self._core})
        except OSError as error:  # the core was taken from this process since
            name = threading.current_thread().name
            _log.warning("callers_core: core %d cannot be had any more, %s stays where it is: %s", self._core, name, error)
