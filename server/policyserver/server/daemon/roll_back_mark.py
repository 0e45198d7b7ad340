"""Notes to which checkpoint a run was rolled back, where that could not be written again as the newest one, so that a start takes it.

A full disk takes no checkpoint, nor any other file. The note is the target of a symbolic link, which lies in the folder's own blocks and in
an inode on the usual file systems, and needs no room beside.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_NAME, _UNFINISHED = "rolled-back", "tmp-rolled-back"
_SEPARATOR = ":"


class RollBackMark(NamedTuple):
    """A roll-back that is served, and not written as a checkpoint of its own."""

    weights_seq_no: int
    """Policy version under which it is served."""
    lineage: int
    """How many roll-backs of the run that makes."""
    path: Path
    """The checkpoint that is served."""


def write_mark(folder: Path, mark: RollBackMark) -> None:
    """Note a roll-back beside the checkpoints, in place of an older note; say so in the log where even that can't be written."""
    name = mark.path.name if mark.path.parent == folder else str(mark.path)
    unfinished = folder / _UNFINISHED
    try:
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(_SEPARATOR.join((str(mark.weights_seq_no), str(mark.lineage), name)))
        unfinished.replace(folder / _NAME)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        logger.error(
            "%s: the roll-back to %s can't be noted: %s; a start before the next save goes on without it", folder, mark.path, error
        )


def read_mark(folder: Path) -> RollBackMark | None:
    """Return the note, if there is one."""
    try:
        version, lineage, name = os.readlink(folder / _NAME).split(_SEPARATOR, 2)
        return RollBackMark(int(version), int(lineage), folder / name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s: expected the note of a roll-back, received %s; it is passed over", folder / _NAME, error)
        return None


def remove_mark(folder: Path) -> None:
    """Remove the note, as a newer checkpoint says more."""
    with contextlib.suppress(OSError):
        (folder / _NAME).unlink(missing_ok=True)
