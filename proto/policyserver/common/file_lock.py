"""A lock on a file, by which processes agree on the one that may do something."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """A lock on a file. One process has it until it releases it or ends; the kernel drops it even after `kill -9`."""

    def __init__(self, path: Path) -> None:
        """Don't take it yet."""
        self._path = path
        self._fd = -1

    def take(self) -> bool:
        """Make the file if it is missing, and take the lock if no other process has it; return whether this one has it now.

        Raises:
            OSError: The file can't be made, opened or locked.
        """
        if self._fd < 0:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._path.stat()  # its last holder may have removed it
                self._fd = fd
            except (BlockingIOError, FileNotFoundError):
                os.close(fd)
            except BaseException:
                os.close(fd)
                raise
        return self._fd >= 0

    def release(self) -> None:
        """Let another process take it. In a forked child the parent keeps it. A second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # first: the descriptor is closed, too, where the folder answers with an error
            os.close(fd)
