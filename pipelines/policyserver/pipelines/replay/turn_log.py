"""The event log of a run: takes turns from the nodes, and writes them on a thread of its own.

A log holds turns from the first one on without a gap, for a replay begins there. So it ends where it can't go on: when it has its bytes,
or when its writer is further behind than its queue is long. What comes after that is counted, not kept. While the file can't be written, as
on a full disk, the turns wait in the queue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from policyserver.monitoring.trouble import Trouble
from policyserver.pipelines.replay.columns import ActionType
from policyserver.pipelines.replay.event_file import EndWord, EventFile
from policyserver.pipelines.replay.turn import Turn

logger = logging.getLogger(__name__)

FLUSH_S = 0.25
"""Seconds from one flush to the next: what a kill can take."""

MOST_ROWS_WAITING = 1_000_000
"""Rows of the queue between the nodes and the writer, about 100 bytes each."""


class TurnLog:
    """A run's event log, with a writer thread from the first turn to `close`."""

    def __init__(
        self,
        folder: Path,
        action: ActionType,
        max_bytes: int,
        *,
        flush_s: float = FLUSH_S,
        most_rows_waiting: int = MOST_ROWS_WAITING,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin the log in a folder that has none.

        Args:
            folder: Of the run.
            action: What its actions are made of.
            max_bytes: Most bytes of the file.
            flush_s: Seconds from one flush to the next.
            most_rows_waiting: Rows of the queue.
            on_end: Is called, on the writer's thread, when the log ends before its run.

        Raises:
            OSError: The folder can't be written, or has a log.
        """
        self._file = EventFile(folder, action, max_bytes)
        self._path = folder
        self._flush_s = flush_s
        self._most_rows_waiting = most_rows_waiting
        self._on_end = on_end
        self._lock = threading.Lock()  # guards what follows
        self._waiting: list[Turn] = []
        self._rows_waiting = 0
        self._word: EndWord | Literal["failed"] | None = None
        self.recorded = 0
        """Turns in the file."""
        self.unrecorded = 0
        """Turns that came when the log had ended."""
        self._half_written: Sequence[Turn] = ()
        """Turns of which the file may have a part, because it could not be written."""
        self._trouble = Trouble(logger, f"{folder}: the event log")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="turn-log", daemon=True)
        self._thread.start()

    @property
    def n_bytes(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def add(self, turn: Turn) -> None:
        """Take a turn that is over; never waits."""
        turn.wall_ns = time.time_ns()
        rows = 1 + (len(turn.asked[0]) if turn.asked else 0)
        with self._lock:
            if self._word is None and self._rows_waiting + rows > self._most_rows_waiting and self._waiting:
                self._word = "behind"
            if self._word is not None:
                self.unrecorded += 1
                return
            self._waiting.append(turn)
            self._rows_waiting += rows

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what was taken, and end the log. Closing again does nothing."""
        self._closing.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.warning("%s: the event log was not written within %g s; it has no end", self._path, timeout_s)

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._closing.wait(self._flush_s)
            self._flush()
            if self._word is not None:
                break
        if self._half_written:
            self._end("failed", self._half_written)
        word = self._word or "end"
        if word != "end":
            logger.warning("%s: the event log ends here (%s), after %d turns; a replay gets no further", self._path, word, self.recorded)
            self._on_end()
        try:
            self._file.close(None if word == "failed" or self._half_written else word)
        except OSError:
            logger.exception("%s: the event log has no end", self._path)

    def _flush(self) -> None:
        """Write what waits; what finds no room is counted."""
        turns = self._half_written
        try:
            if turns:
                self._file.go_on()
                self._note_written(turns)
            with self._lock:
                turns, self._waiting = self._waiting, []
                self._rows_waiting = 0
            if turns and not self._file.write(turns):
                self._end("full", turns)
                return
            self._note_written(turns)
        except OSError as error:
            self._half_written = turns
            self._trouble.occurred(type(error).__name__, f"can't be written, trying again; turns wait meanwhile: {error}")
        except Exception:
            logger.exception("%s: the event log can't be written", self._path)
            self._half_written = ()
            self._end("failed", turns)

    def _note_written(self, turns: Sequence[Turn]) -> None:
        self._half_written = ()
        with self._lock:
            self.recorded += len(turns)
        self._trouble.is_over("is written again")

    def _end(self, word: EndWord | Literal["failed"], unrecorded: Sequence[Turn] = ()) -> None:
        with self._lock:
            self._word = self._word or word
            waiting, self._waiting = self._waiting, []
            self.unrecorded += len(unrecorded) + len(waiting)
