"""What becomes of a store's file that is damaged: it is put aside under another name, so that a new one can take its place."""

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
"""Ends of the names of a store's files, the store itself last: who opens it meanwhile finds it without a log, not a log without it."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file holds no database, or a broken one."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def inode(path: Path) -> int:
    """Return what tells a file from a later one of the same name; 0 if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def put_aside(path: Path, damaged_inode: int, error: sqlite3.Error) -> None:
    """Rename a damaged store, with a warning, unless another process has done so already.

    Under its new name SQLite still opens it, so what is whole in it can be recovered with `sqlite3 FILE .recover`.

    Args:
        path: The store's file.
        damaged_inode: Of the file that was found to be damaged.
        error: What SQLite said.

    Raises:
        OSError: it can't be renamed.
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
    """Keep other processes of ours from renaming stores in a folder meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
