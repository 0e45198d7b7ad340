"""Keeps the batches of refused updates, as files that numpy reads without pickle."""

from __future__ import annotations

import contextlib
import logging
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policyserver.server.guard.findings import RefusedUpdate

logger = logging.getLogger(__name__)

_PREFIX, _ENDING = "update-", ".npz"
_REASON, _WHAT, _VERSION = "reason", "what", "weights_seq_no"


class UnreadableBatchError(ValueError):
    """A file that is no batch of a refused update."""


@dataclass(frozen=True)
class KeptBatch:
    """What a file of the quarantine has."""

    reason: str
    """Why the update was refused, see `findings.ADVICE`."""
    what: str
    """What was found, in which array."""
    weights_seq_no: int
    """Policy version that the update would have made."""
    columns: dict[str, Any]
    """What it learned from: arrays by module and column, those of a nested space by their keys."""


def read_batch(path: Path) -> KeptBatch:
    """Read a file of the quarantine, without pickle.

    Raises:
        UnreadableBatchError: It is not a batch that was kept.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = [arrays.pop(name) for name in (_REASON, _WHAT, _VERSION)]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UnreadableBatchError(f"expected a file of the folder `quarantine` of a run, received {path}: {error}") from error
    columns: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        place = columns
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = array
    return KeptBatch(str(about[0]), str(about[1]), int(about[2]), columns)


class Quarantine:
    """A folder of the newest batches. Owned by the daemon's main thread."""

    def __init__(self, folder: Path, most_files: int, most_bytes: int) -> None:
        """Take the folder; it is made with the first file."""
        self._folder, self._most_files, self._most_bytes = folder, most_files, most_bytes

    def keep(self, finding: RefusedUpdate) -> Path | None:
        """Write the batch of an update with what was found in it, and drop the oldest files beyond the bounds; None if it is not kept."""
        if not (finding.batch and self._most_files):
            return None
        path = self._folder / f"{_PREFIX}{1 + max((number for number, _ in self._all()), default=0):08d}{_ENDING}"
        unfinished = path.with_suffix(".tmp")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            unfinished.touch(mode=0o600)
            about = {_REASON: np.array(finding.reason), _WHAT: np.array(finding.what), _VERSION: np.array(finding.weights_seq_no)}
            with unfinished.open("wb") as file:
                np.savez_compressed(file, **about, **finding.batch)  # type: ignore[arg-type]  # its stubs take keywords for options
            if unfinished.stat().st_size > self._most_bytes:
                unfinished.unlink()
                return None
            unfinished.rename(path)
        except OSError as error:
            logger.error("the batch of a refused update is not kept: %s", error)
            with contextlib.suppress(OSError):
                unfinished.unlink()
            return None
        self._drop_oldest()
        return path

    def _drop_oldest(self) -> None:
        kept = total = 0
        for _, path in sorted(self._all(), reverse=True):
            size = path.stat().st_size
            if kept + 1 > self._most_files or total + size > self._most_bytes:
                path.unlink(missing_ok=True)
            else:
                kept, total = kept + 1, total + size

    def _all(self) -> Iterator[tuple[int, Path]]:
        for path in self._folder.glob(f"{_PREFIX}*{_ENDING}"):
            if (number := path.name.removeprefix(_PREFIX).removesuffix(_ENDING)).isdecimal():
                yield int(number), path
