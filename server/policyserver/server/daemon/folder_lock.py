"""An exclusive claim on a folder that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_NAME = "lock"


class FolderInUseError(RuntimeError):
    """The folder is claimed by another running process."""


class FolderLock:
    """Holds a folder for this process by a file lock, which the kernel drops even after `kill -9`."""

    def __init__(self, folder: Path) -> None:
        """Claim the folder, which must exist.

        Raises:
            FolderInUseError: If another process holds it.
        """
        self._file: int | None = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise FolderInUseError(f"{folder}: in use by another process; stop that one or choose another folder") from error

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a folder has been claimed by this class before."""
        return (folder / _NAME).is_file()

    def release(self) -> None:
        """Give the folder back. A second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
