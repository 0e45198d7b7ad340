"""Reads of an embedded store."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyserver.monitoring.recorded_prices import RecordedPrices
from policyserver.monitoring.schema import MEASUREMENTS, PRICES
from policyserver.monitoring.store import rollups, tables
from policyserver.monitoring.store.damage import inode
from policyserver.monitoring.store.episode_tags import TAGS, EpisodeTags

logger = logging.getLogger(__name__)

_OUT_OF_ORDER_ROWS = 10_000
"""How much later than its successors in time a row may have been written, in rows: sinks that retry, processes side by side."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The steps recorded of a run."""

    steps: int
    """Number of steps."""
    reward_sum: float
    """Sum of their rewards."""


class StoreReader:
    """Reads a store's file, which other processes may be writing. Several threads may use it, one at a time.

    If a writer replaces a damaged store, `newest_ids` notices it and goes on with the new one.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no database.
            sqlite3.Error: It can't be read.
        """
        self._path = Path(path)
        self._inode = inode(self._path)
        self._connection = _open(self._path)
        self.files = 1
        """How many files were read under this name. What an earlier one held says nothing about the newest."""
        self._lock = threading.Lock()
        self._episode_tags, self._tags_lock = EpisodeTags(), threading.Lock()
        self._tables = self._present_tables()

    def close(self) -> None:
        """Close the file. Closing again does nothing."""
        with self._lock:
            self._connection.close()

    def newest_ids(self) -> dict[str, int]:
        """Read the id of the newest row of each measurement, 0 without rows, from the file that is there now."""
        self._follow_file()
        if not MEASUREMENTS.keys() <= set(self._tables):  # an older version's store lacks new ones until this version writes to it
            self._tables = self._present_tables()
        newest = {name: f'(SELECT COALESCE(MAX(id), 0) FROM "{name}")' for name in self._tables}
        parts = ", ".join(newest.get(name, "0") for name in MEASUREMENTS)
        return dict(zip(MEASUREMENTS, self.select(f"SELECT {parts}")[0], strict=True))

    def runs(self) -> list[str]:
        """List the runs that have points, newest first."""
        newest: dict[str, int] = {}
        with self._lock:
            for table in self._tables:
                for run in tables.runs(self._connection, table):
                    (time_ns,) = self._connection.execute(f'SELECT MAX(time_ns) FROM "{table}" WHERE run = ?', (run,)).fetchone()
                    newest[run] = max(time_ns, newest.get(run, time_ns))
        return sorted(newest, key=lambda run: newest[run], reverse=True)

    def ledger(self, run: str, worker: str | None = None) -> Ledger:
        """Count the recorded steps of a run, or of one of its processes, and sum their rewards.

        Reads every step that isn't merged: for summaries, not for the page.
        """
        of = "run = :run" if worker is None else "run = :run AND worker = :worker"
        parts = [f"SELECT COUNT(*) AS steps, TOTAL(reward) AS rewards FROM step WHERE {of}"]
        if "step_1m" in self._tables:  # a store that an older version wrote lacks it
            parts.append(f"SELECT SUM(points), TOTAL(reward_sum) FROM step_1m WHERE {of}")
        values = {"run": run, "worker": worker}
        ((steps, reward_sum),) = self.select(f"SELECT SUM(steps), TOTAL(rewards) FROM ({' UNION ALL '.join(parts)})", values)
        return Ledger(steps, reward_sum)

    def select(self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> list[Any]:
        """Execute a query; return the rows as tuples."""
        with self._lock:
            return self._connection.execute(statement, parameters).fetchall()

    def time_range_ns(self, run: str) -> tuple[int, int] | None:
        """Read the times of a run's first and newest point, nanoseconds since 1970 (UTC); None without points."""
        ends = [
            # each alone, for then SQLite uses the index
            self.select(f'SELECT {end}(time_ns) FROM "{name}" WHERE run = ?', (run,))[0][0]
            for name in self._tables
            for end in ("MIN", "MAX")
        ]
        known = [time_ns for time_ns in ends if time_ns is not None]
        return (min(known), max(known)) if known else None

    def episode_tags(self, run: str) -> dict[str, list[str]]:
        """List the values of the tags `symbol` and `policy` in a run's episodes and newest steps.

        Each call looks at a bounded number of rows: of a long run, the first ones don't know what only older episodes have.
        """
        with self._tags_lock:
            values = {tag: set(known) for tag, known in self._episode_tags.read(self.select, run).items()}
        newest = f"FROM step WHERE id > (SELECT MAX(id) FROM step) - {_OUT_OF_ORDER_ROWS} AND +run = ?"
        for row in self.select(f"SELECT DISTINCT {', '.join(TAGS)} {newest}", (run,)):
            for tag, value in zip(TAGS, row, strict=True):
                values[tag].add(value)
        return {tag: sorted(known) for tag, known in values.items()}

    def recorded_prices(self, run: str) -> list[RecordedPrices]:
        """Read on which recorded bars a run is played, by symbol and part of the split; empty for simulated prices."""
        if PRICES.name not in self._tables:
            return []
        has_span = self.select("SELECT COUNT(*) FROM pragma_table_info('prices') WHERE name = 'span'")[0][0]  # an older store lacks it
        span = "COALESCE(span, '')" if has_span else "''"
        columns = f"symbol, MAX(trained_on), MAX(bars), MIN(first_bar_s), MAX(last_bar_s), {span} AS part"
        rows = self.select(f"SELECT {columns} FROM prices WHERE run = ? AND recorded GROUP BY symbol, part ORDER BY part, symbol", (run,))
        return [RecordedPrices(symbol, bool(trained_on), *span) for symbol, trained_on, *span in rows]

    def id_before(self, measurement: str, run: str, time_ns: int) -> int:
        """Read an id below all rows of a run from a time on. Rows come nearly in the order of their times, so it is close."""
        first = f'SELECT id FROM "{measurement}" WHERE run = ? AND time_ns >= ? ORDER BY time_ns LIMIT 1'
        ((found,),) = self.select(f'SELECT COALESCE(({first}), (SELECT MAX(id) FROM "{measurement}"), 0)', (run, time_ns))
        return max(0, int(found) - _OUT_OF_ORDER_ROWS)

    def has_more(self, measurement: str, run: str, time_ns: int, most: int) -> bool:
        """Tell whether a run has more than `most` rows from a time on, at the cost of so many entries of the index."""
        of_run = f'SELECT 1 FROM "{measurement}" WHERE run = ? AND time_ns >= ? LIMIT ?'
        return int(self.select(f"SELECT COUNT(*) FROM ({of_run})", (run, time_ns, most + 1))[0][0]) > most

    def id_before_newest(self, measurement: str, run: str, count: int) -> int:
        """Read an id below the newest `count` rows of a run, as close as `id_before`."""
        found = self.select(f'SELECT time_ns FROM "{measurement}" WHERE run = ? ORDER BY time_ns DESC LIMIT 1 OFFSET ?', (run, count))
        return self.id_before(measurement, run, found[0][0]) if found else 0

    def newest(
        self, measurement: str, run: str, limit: int = 12, after_id: int = 0, tags: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """Read the newest rows of a run that have `tags`, newest first, at most `limit`, and with an `id` above `after_id`."""
        only = "".join(f'AND "{tag}" = ? ' for tag in tags or {})
        statement = f'SELECT * FROM "{measurement}" WHERE id > ? AND +run = ? {only}ORDER BY id DESC LIMIT ?'
        with self._lock:
            cursor = self._connection.execute(statement, (after_id, run, *(tags or {}).values(), limit))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def _follow_file(self) -> None:
        """Read from now on the file that has taken the place of this one, if there is one and it is whole."""
        found = inode(self._path)
        if found in (0, self._inode):
            return
        try:
            connection = _open(self._path)
        except (OSError, ValueError, sqlite3.Error) as error:
            logger.debug("%s is not whole yet", self._path, exc_info=error)
            return
        with self._lock:
            self._connection.close()
            self._connection, self._inode = connection, found
            self.files += 1
        with self._tags_lock:
            self._episode_tags = EpisodeTags()
        self._tables = self._present_tables()

    def _present_tables(self) -> list[str]:
        with self._lock:
            return [name for name in (*MEASUREMENTS, *rollups.ROLLUPS) if tables.stored_columns(self._connection, name)]


def _open(path: Path) -> sqlite3.Connection:
    """Open a store with a view `whole_episode` of the episodes that were not cut; in an older version those have baselines."""
    connection = tables.connect(path, read_only=True)
    try:
        cut = "cut" if "cut" in tables.stored_columns(connection, "episode") else "NULL"
        whole = f"COALESCE(NOT {cut}, no_trade_return IS NOT NULL)"
        connection.execute(f"CREATE TEMP VIEW whole_episode AS SELECT * FROM main.episode WHERE {whole}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
