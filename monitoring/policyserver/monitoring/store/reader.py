"""Reads of an embedded store that are bounded in what they return, whatever the run's size.

Series are thinned in SQL: the run's time is cut into equal buckets and each bucket gives one value, so a page draws a long run as fast as a
short one. Where old points have been merged, the view `<measurement>_all` gives them and the newer ones in the same form.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyserver.monitoring.recorded_prices import RecordedPrices
from policyserver.monitoring.schema import MEASUREMENTS, PRICES
from policyserver.monitoring.store import rollups, tables
from policyserver.monitoring.store.damage import inode

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


Series = dict[str, list[Any]]
"""Columns of equal length; `time_s` is seconds since 1970 (UTC)."""


class StoreReader:
    """Reads a store's file, which other processes may be writing. Usable from several threads, one at a time.

    A store that its writer finds damaged is put aside, and another begun under its name: `newest_ids` notices it and goes on with that.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no database.
            sqlite3.Error: it cannot be read.
        """
        self._path = Path(path)
        self._inode = inode(self._path)
        self._connection = _open(self._path)
        self.files = 1
        """How many files were read under this name. What was read of an earlier one says nothing about the newest."""
        self._lock = threading.Lock()
        self._tables = self._present_tables()

    def close(self) -> None:
        """Close the file. Closing again does nothing."""
        with self._lock:
            self._connection.close()

    def newest_ids(self) -> dict[str, int]:
        """Read the id of the newest row of each measurement, 0 where there is none; of the file that is there now."""
        self._follow_file()
        if not MEASUREMENTS.keys() <= set(self._tables):  # an older version's store lacks the newer ones until this version writes to it
            self._tables = self._present_tables()
        newest = {name: f'(SELECT COALESCE(MAX(id), 0) FROM "{name}")' for name in self._tables}
        parts = ", ".join(newest.get(name, "0") for name in MEASUREMENTS)
        return dict(zip(MEASUREMENTS, self._rows(f"SELECT {parts}")[0], strict=True))

    def runs(self) -> list[str]:
        """List the runs that have points, newest first."""
        newest: dict[str, int] = {}
        with self._lock:
            for table in self._tables:
                for run in tables.runs(self._connection, table):
                    (time_ns,) = self._connection.execute(f'SELECT MAX(time_ns) FROM "{table}" WHERE run = ?', (run,)).fetchone()
                    newest[run] = max(time_ns, newest.get(run, time_ns))
        return sorted(newest, key=lambda run: newest[run], reverse=True)

    def ledger(self, run: str) -> Ledger:
        """Count the steps recorded of a run, and sum their rewards. Reads every step not merged yet: for summaries, not for the page."""
        steps, reward_sum = self._rows("SELECT SUM(points), TOTAL(reward_sum) FROM step_all WHERE run = ?", run)[0]
        return Ledger(steps or 0, reward_sum)

    def returns(self, run: str, buckets: int = 240) -> Series:
        """Read a learning curve: the mean return of the whole episodes of each bucket, beside the baselines on the same prices.

        Columns `mean, no_trade, random, episodes`.
        """
        return self._thinned(
            "whole_episode",
            run,
            buckets,
            {"mean": 'AVG("return")', "no_trade": "AVG(no_trade_return)", "random": "AVG(random_return)", "episodes": "COUNT(*)"},
        )

    def learner(self, run: str, buckets: int = 240) -> Series:
        """Read the learner over time: `loss, kl, entropy, weights_seq_no, staleness, steps_total`."""
        return self._thinned(
            "train_all",
            run,
            buckets,
            {
                "loss": "SUM(loss_sum) / SUM(loss_count)",
                "kl": "SUM(kl_sum) / SUM(kl_count)",
                "entropy": "SUM(entropy_sum) / SUM(entropy_count)",
                "weights_seq_no": "MAX(weights_seq_no_max)",
                "staleness": "SUM(staleness_mean_sum) / SUM(staleness_mean_count)",
                "steps_total": "MAX(steps_total_max)",
            },
            source=(  # only what is needed, for SQLite would compute every column of the view
                "SELECT time_ns, loss_sum, loss_count, kl_sum, kl_count, entropy_sum, entropy_count, staleness_mean_sum, "
                "staleness_mean_count, weights_seq_no_max, steps_total_max FROM train_all WHERE run = :run"
            ),
        )

    def serving(self, run: str, buckets: int = 240) -> Series:
        """Read the server over time: `actions_per_s, episodes_open, steps_waiting, steps_dropped, staleness`.

        Rates are differences of counters of one serving process, whoever wrote them, so a restarted server shows no jump; those of
        several add up.
        """
        return self._thinned(
            "server",
            run,
            buckets,
            {
                "actions_per_s": "SUM(acted) * 1e9 / SUM(passed_ns) * COUNT(DISTINCT boot_id)",
                "episodes_open": "AVG(episodes_open) * COUNT(DISTINCT boot_id)",
                "steps_waiting": "AVG(steps_waiting) * COUNT(DISTINCT boot_id)",
                "steps_dropped": "SUM(dropped)",
                "staleness": "AVG(staleness_mean)",
            },
            source=(
                "SELECT *, actions - LAG(actions) OVER boot AS acted, time_ns - LAG(time_ns) OVER boot AS passed_ns, "
                "steps_dropped - LAG(steps_dropped, 1, 0) OVER boot AS dropped "
                "FROM server WHERE run = :run WINDOW boot AS (PARTITION BY boot_id ORDER BY time_ns)"
            ),
        )

    def select(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """Execute a query of one's own; the rows as tuples."""
        with self._lock:
            return self._connection.execute(statement, parameters).fetchall()

    def time_range_ns(self, run: str) -> tuple[int, int] | None:
        """Read the times of a run's first and newest point, nanoseconds since 1970 (UTC); None where it has none."""
        ends = [
            # each by itself, for then it is found by the index
            self._rows(f'SELECT {end}(time_ns) FROM "{name}" WHERE run = ?', run)[0][0]
            for name in self._tables
            for end in ("MIN", "MAX")
        ]
        known = [time_ns for time_ns in ends if time_ns is not None]
        return (min(known), max(known)) if known else None

    def episode_tags(self, run: str) -> dict[str, list[str]]:
        """List the values that the tags `symbol` and `policy` have in a run: of its episodes, and of its newest steps."""
        values: dict[str, list[str]] = {}
        for tag in ("symbol", "policy"):
            newest = f'SELECT "{tag}" FROM step WHERE id > (SELECT MAX(id) FROM step) - {_OUT_OF_ORDER_ROWS} AND +run = :run'
            rows = self.select(f'SELECT "{tag}" FROM episode WHERE +run = :run UNION {newest} ORDER BY 1', {"run": run})
            values[tag] = [value for (value,) in rows]
        return values

    def recorded_prices(self, run: str) -> list[RecordedPrices]:
        """Read which recorded bars a run is played on, by symbol; none where prices are simulated."""
        if PRICES.name not in self._tables:
            return []
        columns = "symbol, MAX(trained_on), MAX(bars), MIN(first_bar_s), MAX(last_bar_s)"
        rows = self._rows(f"SELECT {columns} FROM prices WHERE run = ? AND recorded GROUP BY symbol ORDER BY symbol", run)
        return [RecordedPrices(symbol, bool(trained_on), *span) for symbol, trained_on, *span in rows]

    def id_before(self, measurement: str, run: str, time_ns: int) -> int:
        """Read an id below those of all rows of a run from a time on. Rows come nearly in the order of their times, so it is close."""
        first = f'SELECT id FROM "{measurement}" WHERE run = ? AND time_ns >= ? ORDER BY time_ns LIMIT 1'
        ((found,),) = self._rows(f'SELECT COALESCE(({first}), (SELECT MAX(id) FROM "{measurement}"), 0)', run, time_ns)
        return max(0, int(found) - _OUT_OF_ORDER_ROWS)

    def newest(
        self, measurement: str, run: str, limit: int = 12, after_id: int = 0, tags: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """Read the newest rows of a run that have `tags`, newest first, at most `limit` and only those with an `id` above `after_id`.

        Raises:
            ValueError: unknown measurement.
        """
        if measurement not in MEASUREMENTS:
            raise ValueError(f"measurement: expected one of {', '.join(MEASUREMENTS)}, received {measurement!r}")
        only = "".join(f'AND "{tag}" = ? ' for tag in tags or {})
        statement = f'SELECT * FROM "{measurement}" WHERE id > ? AND +run = ? {only}ORDER BY id DESC LIMIT ?'
        with self._lock:
            cursor = self._connection.execute(statement, (after_id, run, *(tags or {}).values(), limit))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def _thinned(self, table: str, run: str, buckets: int, values: dict[str, str], source: str = "") -> Series:
        """Read one value a bucket of each expression; `time_s` is the mean time of the bucket's rows."""
        names = ("time_s", *values)
        # Not MIN and MAX, which read every row of a view.
        ends = (self._rows(f'SELECT time_ns FROM "{table}" WHERE run = ? ORDER BY time_ns {way} LIMIT 1', run) for way in ("ASC", "DESC"))
        times_ns = [time_ns for rows in ends for (time_ns,) in rows]
        if not times_ns:
            return {name: [] for name in names}
        first, last = times_ns
        width = (last - first) // buckets + 1
        source = source or f'SELECT * FROM "{table}" WHERE run = :run'
        statement = (
            f"SELECT AVG(time_ns - :first) * 1e-9 + :first * 1e-9, {', '.join(values.values())} "
            f"FROM ({source}) GROUP BY (time_ns - :first) / :width ORDER BY 1"
        )
        with self._lock:
            rows = self._connection.execute(statement, {"run": run, "first": first, "width": width}).fetchall()
        return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}

    def _follow_file(self) -> None:
        """Read another file from now on if there is another; one that is not whole yet is looked at again later."""
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
        self._tables = self._present_tables()

    def _present_tables(self) -> list[str]:
        with self._lock:
            return [name for name in (*MEASUREMENTS, *rollups.ROLLUPS) if tables.stored_columns(self._connection, name)]

    def _rows(self, statement: str, *parameters: Any) -> list[Any]:
        """Execute a query."""
        with self._lock:
            return self._connection.execute(statement, parameters).fetchall()


def _open(path: Path) -> sqlite3.Connection:
    """Open a store with the views that its reader asks."""
    connection = tables.connect(path, read_only=True)
    try:
        for measurement in rollups.MERGED:
            rollups.create_view(connection, measurement)
        _create_whole_episodes(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _create_whole_episodes(connection: sqlite3.Connection) -> None:
    """Make the view `whole_episode` of this connection: the episodes that were not cut; of an older version, those with baselines."""
    cut = "cut" if "cut" in tables.stored_columns(connection, "episode") else "NULL"
    whole = f"COALESCE(NOT {cut}, no_trade_return IS NOT NULL)"
    connection.execute(f"CREATE TEMP VIEW whole_episode AS SELECT * FROM main.episode WHERE {whole}")
