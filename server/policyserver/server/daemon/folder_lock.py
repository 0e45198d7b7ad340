"""An exclusive claim on a folder that ends with its process, however that ends."""

from __future__ import annotations

from pathlib import Path

from policyserver.common.file_lock import FileLock

_NAME = "lock"


class FolderInUseError(RuntimeError):
    """The folder is claimed by another running process."""


class FolderLock(FileLock):
    """Holds a folder for this process by a lock on a file in it."""

    def __init__(self, folder: Path) -> None:
        """Claim the folder, which must exist.

        Raises:
            FolderInUseError: If another process holds it.
        """
        super().__init__(folder / _NAME)
        if not self.take():
            raise FolderInUseError(f"{folder}: in use by another process; stop that one or choose another folder")

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a folder has been claimed by this class before."""
        return (folder / _NAME).is_file()
