"""How long this process stood still, so that a limit of time holds what it computes and not what else the machine did meanwhile."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

_TICK_S = 0.05


class Stalls:
    """Measures in a block how much later than it asked a thread is woken that only sleeps; `lost_s` says it afterwards."""

    def __init__(self) -> None:
        self.lost_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stalls")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        is_over = False
        while not is_over:
            began = time.monotonic()
            is_over = self._over.wait(_TICK_S)
            self.lost_s += max(0.0, time.monotonic() - began - _TICK_S)
