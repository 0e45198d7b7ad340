"""Saves what a run's forecasters have learnt: now and then on a thread of its own, and when the run has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from policyserver.pipelines.forecast.state_file import STATE_FILE, ForecastState

logger = logging.getLogger(__name__)


class StateSaver:
    """Writes states into a run's folder, from `start` to `close`.

    A state that can't be saved is logged, and the one before stays in its place; the run goes on.
    """

    def __init__(self, folder: Path, state: Callable[[], ForecastState], every_s: float) -> None:
        """Save `state()` into the folder of a run every so many seconds."""
        self._path = folder / STATE_FILE
        self._state = state
        self._every_s = every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forecast-saver", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, *, save: bool = True) -> None:
        """Stop the thread, and save once more, unless a failure may have left a model half taught."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        if save and (state := self._save()) is not None:
            logger.info("what the forecaster learnt from %d labels: %s", state.learned, self._path)

    def _run(self) -> None:
        while not self._closing.wait(self._every_s):
            self._save()

    def _save(self) -> ForecastState | None:
        try:
            state = self._state()
            if not state.models:
                return None
            state.write(self._path)
        except Exception:  # pickling runs a model's own code
            logger.exception("%s: what the forecaster has learnt can't be saved", self._path)
            return None
        return state
