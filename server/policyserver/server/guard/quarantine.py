"""Keeps the batches of refused updates, as files that numpy reads without pickle."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from policyserver.server.guard.findings import RefusedUpdate

logger = logging.getLogger(__name__)

_PREFIX, _ENDING = "update-", ".npz"


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
            about = {"reason": np.array(finding.reason), "what": np.array(finding.what)}
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
