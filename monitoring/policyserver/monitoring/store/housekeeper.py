"""Keeps an embedded store small: merges, thins and deletes old points, and gives the space back.

It works in bits, each a transaction of a few milliseconds: a reader sees a point either as it was written or merged, a process that dies
leaves nothing half done, and a writer waits for one bit at most.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from policyserver.monitoring.schema import MEASUREMENTS, NODE, RESULT, SERVER, SHADOW, SINK, Measurement
from policyserver.monitoring.store import rollups, tables
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.rollups import MINUTE_NS
from policyserver.monitoring.store.write_access import HousekeeperLock, begin, roll_back

logger = logging.getLogger(__name__)

BIT_ROWS = 2048
"""Most rows of one bit."""

NEWEST_ROWS = 1000
"""Newest rows of each measurement that stay unmerged at any age, so that a page can always show the newest decisions."""

_COUNTERS = (SERVER, NODE, SINK, RESULT, SHADOW)
"""Measurements of counters, of which the last point of each minute stays."""

_BIT_PAGES = 256
_SPARE_PAGES = 1024
"""Free pages that stay in the file for the next points."""


class Housekeeper:
    """Works on the connection of the store's writer. Of several on one file only the holder of the lock is active."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, config: RetentionConfig, gives_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Do nothing yet; the file's tables must be there. `gives_up` says whether other processes are not waited for any more."""
        self._connection = connection
        self._path = path
        self._lock = HousekeeperLock(path)
        self._config = config
        self._gives_up = gives_up
        self._work: Iterator[None] | None = None
        self._begins_at = time.monotonic()
        self._thinned_ns: dict[tuple[str, str], int] = {}
        self._last_error = ""

    @property
    def wait_s(self) -> float:
        """Time until there may be work, seconds."""
        return 0.0 if self._work is not None else max(0.0, self._begins_at - time.monotonic())

    def work(self, bits: int) -> None:
        """Do some bits of the present work, if there is any."""
        if self.wait_s > 0.0:
            return
        try:
            if self._work is None and self._lock.take():
                self._work = self._whole_pass()
            if self._work is not None:
                for _ in range(bits):
                    next(self._work)
                return
        except StopIteration:
            self._last_error = ""
        except (sqlite3.Error, OSError) as error:
            roll_back(self._connection)
            if str(error) != self._last_error:
                logger.warning("%s can't be kept small, trying again every %g s: %s", self._path, self._config.interval_s, error)
            self._last_error = str(error)
        self._work = None
        self._begins_at = time.monotonic() + self._config.interval_s

    def close(self) -> None:
        """Leave the work to another process. Closing again does nothing."""
        self._work = None
        self._begins_at = float("inf")
        self._lock.release()

    def _whole_pass(self) -> Iterator[None]:
        """Do all present work, one bit at each `next`."""
        if self._config.keep_s is not None:
            before_ns = time.time_ns() - int(self._config.keep_s * 1e9)
            for name in (*MEASUREMENTS, *rollups.ROLLUPS):
                yield from self._take_away(name, before_ns)
        for measurement in (*rollups.MERGED, *_COUNTERS):
            before_ns = self._raw_before_ns(measurement.name)
            if measurement in _COUNTERS:
                yield from self._thin(measurement, before_ns)
            else:
                yield from self._take_away(measurement.name, before_ns, merge_into=measurement)
        yield from self._give_back()

    def _take_away(self, table: str, before_ns: int, merge_into: Measurement | None = None) -> Iterator[None]:
        """Delete each run's rows before a time. Rows to merge are merged first, and the newest of them stay."""
        condition = "run = :run AND time_ns < :before_ns"
        last_id = 0
        if merge_into is not None:
            condition += " AND id <= :last_id"
            last_id = self._newest_id(table) - NEWEST_ROWS
        for run in tables.runs(self._connection, table):
            taken = BIT_ROWS
            while taken >= BIT_ROWS:
                begin(self._connection, self._gives_up)
                rows = {"run": run, "before_ns": before_ns, "last_id": last_id}
                rows["before_ns"] = self._bit_end_ns(table, condition, rows)
                if merge_into is not None:
                    self._connection.execute(rollups.merge_statement(merge_into), rows)
                taken = self._connection.execute(f'DELETE FROM "{table}" WHERE {condition}', rows).rowcount
                self._connection.execute("COMMIT")
                yield

    def _thin(self, measurement: Measurement, before_ns: int) -> Iterator[None]:
        """Delete each run's counters but the last of each minute, for each process, node and sink."""
        table = measurement.name
        whose = ", ".join([*(tag for tag in measurement.tags if tag != "run"), *(["boot_id"] if measurement is SERVER else [])])
        statement = (
            f'DELETE FROM "{table}" WHERE id IN (SELECT id FROM (SELECT id, ROW_NUMBER() OVER '
            f"(PARTITION BY time_ns / {MINUTE_NS}, {whose} ORDER BY time_ns DESC) AS age "
            f'FROM "{table}" WHERE run = :run AND time_ns >= :from_ns AND time_ns < :before_ns) WHERE age > 1)'
        )
        for run in tables.runs(self._connection, table):
            while (from_ns := self._thinned_ns.get((table, run), 0)) < before_ns:
                begin(self._connection, self._gives_up)
                rows: dict[str, Any] = {"run": run, "from_ns": from_ns, "before_ns": before_ns}
                end_ns = self._bit_end_ns(table, "run = :run AND time_ns >= :from_ns AND time_ns < :before_ns", rows)
                minute_ns = end_ns // MINUTE_NS * MINUTE_NS
                rows["before_ns"] = minute_ns if minute_ns > from_ns else end_ns
                self._connection.execute(statement, rows)
                self._connection.execute("COMMIT")
                self._thinned_ns[table, run] = rows["before_ns"]
                yield

    def _bit_end_ns(self, table: str, condition: str, rows: dict[str, Any]) -> int:
        """Find the time before which the rows of one bit lie, of those that meet a condition."""
        statement = f'SELECT time_ns FROM "{table}" WHERE {condition} ORDER BY time_ns LIMIT 1 OFFSET {BIT_ROWS - 1}'
        last = self._connection.execute(statement, rows).fetchone()
        return int(rows["before_ns"] if last is None else last[0] + 1)

    def _give_back(self) -> Iterator[None]:
        """Cut free pages off the file."""
        free = self._free_pages()
        while free > _SPARE_PAGES:
            self._connection.executescript(f"PRAGMA incremental_vacuum({_BIT_PAGES})")  # `execute` would stop after the first page
            before, free = free, self._free_pages()
            if free >= before:  # an older version made the file: it keeps its pages and uses them again
                return
            if free <= _SPARE_PAGES:  # the file becomes shorter when the log is copied into it
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            yield

    def _raw_before_ns(self, table: str) -> int:
        """Find the time from which points stay as they are; a whole minute, so that no minute is split."""
        raw_s, raw_points = self._config.raw_s, self._config.raw_points
        by_age = time.time_ns() - int(raw_s * 1e9) if raw_s is not None else 0
        last_id = self._newest_id(table) - raw_points if raw_points is not None else 0
        row = self._connection.execute(f'SELECT time_ns FROM "{table}" WHERE id <= ? ORDER BY id DESC LIMIT 1', (last_id,)).fetchone()
        return max(by_age, row[0] if row else 0) // MINUTE_NS * MINUTE_NS

    def _newest_id(self, table: str) -> int:
        return int(self._connection.execute(f'SELECT COALESCE(MAX(id), 0) FROM "{table}"').fetchone()[0])

    def _free_pages(self) -> int:
        return int(self._connection.execute("PRAGMA freelist_count").fetchone()[0])
