"""The embedded store: points in an SQLite file (WAL), written in batches by one background thread.

A commit survives the death of the process at once, and the loss of power from the next checkpoint of the log on (`synchronous=NORMAL`). A
file that turns out to be damaged is put aside, and a new one begun. The queue lives in memory: what a process has not committed dies with
it, at most `commit_interval_s` of points. Open the store in the process that writes to it, for its thread doesn't survive a fork.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
import sqlite3
import time
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from policyserver.common.settings import Config
from policyserver.monitoring.background_sink import BackgroundSink
from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import MEASUREMENTS
from policyserver.monitoring.store import tables
from policyserver.monitoring.store.damage import is_damage, put_aside
from policyserver.monitoring.store.housekeeper import BIT_ROWS, Housekeeper
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.write_access import begin, open_to_write, roll_back

logger = logging.getLogger(__name__)

_COMMITS_AT_ONCE = 4
"""Most points of one transaction, in multiples of `commit_points`: what is waited for when the time of `close` is up."""

_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
"""The kernel's name for itself, which containers see, too."""


@dataclass(frozen=True)
class StoreConfig(Config):
    """How the store's queue behaves."""

    commit_interval_s: Annotated[float, Ge(0)] = 0.25
    """Time for which points gather before they are committed together, seconds."""
    commit_points: Annotated[int, Ge(1)] = 8192
    """Points that are committed at once, without waiting for the interval."""
    capacity_points: Annotated[int, Ge(1)] = 262_144
    """Points the queue holds."""
    block_timeout_s: Annotated[float, Ge(0)] = 0.1
    """Overflow policy: `write` into a full queue waits this long for room, seconds, then drops its batch and counts it."""
    retry_interval_s: Annotated[float, Ge(0)] = 1.0
    """Time between attempts to write while the file can't be written (locked, disk full), seconds."""
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    """How long points stay, and in how much detail."""


def place_of(path: Path) -> str:
    """Name a store's file, the same in all processes and containers of this machine that see it under its path."""
    try:
        machine = _BOOT_ID_FILE.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        machine = socket.gethostname()
    return f"store-{hashlib.sha256(f'{machine}:{path.resolve()}'.encode(errors='surrogateescape')).hexdigest()[:16]}"


class EmbeddedStore(BackgroundSink):
    """Sink into an SQLite file."""

    _FAILED = "the writer failed, points are lost from now on"

    def __init__(self, path: Path, config: StoreConfig | None = None) -> None:
        """Open the file with `open_to_write`, whose errors pass, and start the thread."""
        self.path = Path(path)
        self.place = place_of(self.path)
        self._config = config or StoreConfig()
        self._connection, self._inode = open_to_write(self.path)
        self._queue: list[Points] = []
        self._queued = 0
        self._reset(logger, str(self.path), "store-writer")
        self._housekeeper = self._keep_house()
        self._thread.start()

    def write(self, points: Points) -> None:
        """Queue a batch; waits at most `block_timeout_s`, and only when the queue is full."""
        count = len(points)
        with self._changed:
            if not self._has_room(count):
                self._changed.wait_for(lambda: self._has_room(count), self._config.block_timeout_s)
            is_closed = self._closing_by is not None
            if is_closed or not self._has_room(count):
                self._drop(count, "the store is closed" if is_closed else "capacity_points is reached, the writer is behind")
                return
            self._accept(count, is_half_empty=2 * self._queued <= self._config.capacity_points)
            self._queue.append(points)
            before, self._queued = self._queued, self._queued + count
            if before == 0 or before < self._config.commit_points <= self._queued:
                self._changed.notify_all()

    def _has_room(self, count: int) -> bool:
        """Whether a batch fits, or won't be taken anyway; a batch larger than the queue fits into an empty one."""
        return self._closing_by is not None or self._queued == 0 or self._queued + count <= self._config.capacity_points

    def _work(self) -> None:
        """Commit what gathers until the store is closed and the queue is empty, and keep the file small meanwhile."""
        while (batch := self._take()) is not None:
            if batch:
                self._commit(batch)
            if self._closing_by is None:  # more than came, or the file would grow
                self._housekeeper.work(bits=1 + 2 * sum(map(len, batch)) // BIT_ROWS)

    def _give_back(self) -> None:
        self._housekeeper.close()
        self._connection.close()

    def _take(self) -> list[Points] | None:
        """Wait for points and let more gather; [] when there is housekeeping to do, None when the store is closed and the queue empty."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._queue or self._closing_by is not None, self._housekeeper.wait_s):
                return []
            if self._queue and self._is_late:
                logger.error("%s: closed with %d points lost, for the time to write them was up", self.path, self._queued)
                return None
            if not self._queue:
                return None
            self._changed.wait_for(
                lambda: self._closing_by is not None or self._flush_upto > self._done or self._queued >= self._config.commit_points,
                self._config.commit_interval_s,
            )
            most = _COMMITS_AT_ONCE * self._config.commit_points
            upto = 1 + sum(1 for _ in takewhile(lambda points: points < most, accumulate(map(len, self._queue))))
            batch, self._queue = self._queue[:upto], self._queue[upto:]
            return batch

    def _commit(self, batch: list[Points]) -> None:
        """Write a batch in one transaction, in as many attempts as it takes."""
        rows: dict[str, list[tuple[Any, ...]]] = {}
        refused, error = 0, ""
        for points in batch:
            try:
                rows.setdefault(points.measurement, []).extend(tables.rows_of(points))
            except ValueError as wrong:
                refused, error = refused + len(points), str(wrong)
                logger.error("points put aside, the store can't take them: %s", wrong)
        failure = self._insert(rows)
        while failure is not None and self._wait_to_retry(failure):
            failure = self._insert(rows)
        stored = sum(map(len, rows.values())) if failure is None else 0
        with self._changed:
            if failure is None:
                self._absence.is_over(f"it is written again, {self._accepted - self._done:,} points had waited")
            self._stored += stored
            self._dead_lettered += refused
            self._last_error = error or self._last_error
            self._queued -= sum(map(len, batch))
            self._changed.notify_all()

    def _insert(self, rows: dict[str, list[tuple[Any, ...]]]) -> sqlite3.Error | None:
        """Try the transaction once; return the error if it failed."""
        try:
            begin(self._connection, lambda: self._is_late)
            for name, of_one_measurement in rows.items():
                tables.insert(self._connection, MEASUREMENTS[name], of_one_measurement)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            roll_back(self._connection)
            if is_damage(error):
                self._begin_anew(error)
            return error
        return None

    def _begin_anew(self, error: sqlite3.Error) -> None:
        """Put the damaged file aside and go on with a new one; if that fails, the next attempt to write comes here again."""
        try:
            put_aside(self.path, self._inode, error)
            connection, self._inode = open_to_write(self.path)
        except (OSError, sqlite3.Error) as failure:
            logger.debug("%s can't be put aside", self.path, exc_info=failure)
            return
        damaged, self._connection = self._connection, connection
        self._housekeeper, before = self._keep_house(), self._housekeeper
        with contextlib.suppress(OSError, sqlite3.Error):  # of a file that is used no more
            before.close()
        with contextlib.suppress(sqlite3.Error):
            damaged.close()

    def _keep_house(self) -> Housekeeper:
        return Housekeeper(self._connection, self.path, self._config.retention, lambda: self._closing_by is not None)

    def _wait_to_retry(self, error: sqlite3.Error) -> bool:
        """Note why the file can't be written, and wait; False when the store closes and time is up."""
        text = f"can't write {self.path.name}: {error}"
        with self._changed:
            self._absence.occurred(str(error), f"{text}; trying again every {self._config.retry_interval_s:g} s, points wait meanwhile")
            self._last_error = text
            if self._is_late:
                logger.error("closed with points lost: %s", text)
                return False
            if self._closing_by is None:
                self._changed.wait_for(lambda: self._closing_by is not None, self._config.retry_interval_s)
            else:
                self._changed.wait(min(self._config.retry_interval_s, max(0.0, self._closing_by - time.monotonic())))
            return True
