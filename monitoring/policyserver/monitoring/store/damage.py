"""What becomes of a damaged store: it is renamed, so that a new one can take its place."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

logger = logging.getLogger(__name__)

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BESIDE = ("-wal", "-shm", "")
"""Ends of the names of a store's files, the store itself last, so that a process that opens it meanwhile finds no log without a store."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file holds a broken database, or none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def inode(path: Path) -> int:
    """Return what tells a file from a later one of the same name; 0 if there is no file."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def put_aside(path: Path, damaged_inode: int, error: sqlite3.Error) -> None:
    """Rename a damaged store, with a warning, unless another process has done so: then the file has another inode than `damaged_inode`.

    SQLite opens it under its new name, too: `sqlite3 FILE .recover` recovers what is whole.

    Raises:
        OSError: The file can't be renamed.
    """
    with _alone_in(path.parent):
        if inode(path) != damaged_inode:
            return
        aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        for end in _BESIDE:
            beside = path.with_name(f"{path.name}{end}")
            if beside.exists():
                beside.rename(aside.with_name(f"{aside.name}{end}"))
    logger.warning("the store %s is damaged (%s): it was put aside as %s, and a new one is begun", path, error, aside)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from renaming stores in a folder meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
