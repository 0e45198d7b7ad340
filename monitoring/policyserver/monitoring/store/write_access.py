"""Who may write a store: each way to open one for writing is here, with its lock and with what refuses it.

Any process may record into a store, several into one. SQLite's lock lets one at a time commit; one that waits for more than 5 s is refused
with an `sqlite3.OperationalError`, and `EmbeddedStore` tries again. Of these processes one does the housekeeping, the holder of a
`HousekeeperLock`. A damaged file is put aside under a lock of its folder. Exports and health checks only read; so does a page, once it has
brought up to date a store that an older version recorded.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from policyserver.common.file_lock import FileLock
from policyserver.monitoring.store import rollups, tables
from policyserver.monitoring.store.damage import inode, is_damage, put_aside

_BUSY_BIT_S = 0.25
"""How long SQLite waits for another process's lock without a look at whether it should, seconds."""

_LOG_BYTES = 1 << 24
"""Size that the write-ahead log is cut to once a reader or a burst has let it grow."""


def open_to_write(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open a store to record into it, with its inode. Makes the file and its folder, or what an older version's file lacks.

    Raises:
        OSError: The folder can't be made, or a damaged file not be put aside.
        sqlite3.Error: The file can't be written, is no store, or another process keeps it locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    found = inode(path)
    try:
        return _open(path), inode(path)
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        put_aside(path, found, error)
    return _open(path), inode(path)


def begin(connection: sqlite3.Connection, gives_up: Callable[[], bool]) -> None:
    """Begin a transaction that writes. While another process has one, it is waited for, but not once `gives_up` says so.

    Raises:
        sqlite3.Error: It can't be begun, or not in time.
    """
    roll_back(connection)
    until = time.monotonic() + tables.BUSY_S
    connection.execute(f"PRAGMA busy_timeout={int(_BUSY_BIT_S * 1000.0)}")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until or gives_up():
                    raise
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(tables.BUSY_S * 1000.0)}")


def roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction that failed, if there is one; what can't be rolled back now is, before the next one begins."""
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def bring_up_to_date(path: Path) -> None:
    """Make what a store of an older version lacks. A file that can't be written stays as it is.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no database.
    """
    tables.connect(path, read_only=True).close()
    with contextlib.closing(tables.connect(path)) as connection, contextlib.suppress(sqlite3.OperationalError):
        _create(connection)


class HousekeeperLock(FileLock):
    """The right to merge and delete a store's points, which one process has."""

    def __init__(self, store: Path) -> None:
        """Don't take it yet."""
        super().__init__(store.with_name(f"{store.name}-housekeeper"))


def _open(path: Path) -> sqlite3.Connection:
    connection = tables.connect(path)
    try:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # before anything is in the file, for afterwards it has no effect
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
        _create(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    tables.create(connection)
    rollups.create(connection)
    connection.execute("COMMIT")
