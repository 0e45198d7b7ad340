"""A server's private folder: its path is short, for the sockets in it, and it may be removed only once its owner is dead."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path

from policyserver.common.endpoints import LONGEST_SOCKET_PATH_BYTES
from policyserver.common.settings import SettingsError
from policyserver.server.daemon.folder_lock import FolderInUseError, FolderLock

logger = logging.getLogger(__name__)

_PREFIX = "policy-server-"
_LONGEST_BELOW = "/policy-server-XXXXXXXX/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""What follows the folder for temporary files in the longest path of a socket: Ray names its sessions by time and process number."""
_MAX_BYTES = LONGEST_SOCKET_PATH_BYTES - len(_LONGEST_BELOW)


class PrivateFolder:
    """A new folder for the sockets of one server and of its private Ray, and a symbolic link to it in the run folder."""

    def __init__(self, pointer: Path | None = None) -> None:
        """Make it, closed to other users, and the link; what the link points to is removed if it is one of these whose owner is dead.

        Raises:
            SettingsError: No folder for temporary files has a path short enough, or something that is no link is in the link's place.
        """
        self._pointer = pointer
        if pointer is not None:
            check_pointer(pointer)
            _clear(pointer)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=short_temporary_folder()))  # mode 0700
        self._owner = FolderLock(self.path)
        if pointer is not None:
            pointer.symlink_to(self.path)

    def remove(self) -> None:
        """Remove the folder and the link, if that still points to it. A second call does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._owner.release()
        if self._pointer is not None:
            with contextlib.suppress(OSError):
                if Path(os.readlink(self._pointer)) == self.path:
                    self._pointer.unlink()


def check_pointer(pointer: Path) -> None:
    """Refuse what is no link where the link shall be.

    Raises:
        SettingsError: Something else is there.
    """
    if not pointer.is_symlink() and pointer.exists():
        raise SettingsError("run_folder", "", f"expected {pointer} to be a link of an earlier run or absent; move it elsewhere")


def _clear(pointer: Path) -> None:
    """Make room for the link."""
    if not pointer.is_symlink():
        return
    folder = Path(os.path.realpath(pointer))
    if (owner := _abandoned(folder)) is not None:
        logger.info("removing %s, which a killed server left behind", folder)
        shutil.rmtree(folder, ignore_errors=True)
        owner.release()
    elif folder.exists():
        logger.warning("%s stays: it is no private folder of a server, or its owner still runs", folder)
    pointer.unlink()


def _abandoned(folder: Path) -> FolderLock | None:
    """Claim a folder that a dead process of this user made by this class; None if it is not such a folder."""
    try:
        status = folder.lstat()
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        if folder.name.startswith(_PREFIX) and is_ours and FolderLock.is_in(folder):
            return FolderLock(folder)
    except (OSError, FolderInUseError) as error:
        logger.debug("%s is not removed: %s", folder, error)
    return None


def short_temporary_folder() -> Path:
    """Choose where the folder lies: among the temporary files, unless the paths of sockets would be too long there.

    Raises:
        SettingsError: No folder for temporary files has a path short enough.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    usual = Path(tempfile.gettempdir()).absolute()
    for folder in (usual, *([Path(runtime)] if os.path.isabs(runtime) else []), Path("/tmp"), Path("/var/tmp")):
        if len(os.fsencode(folder)) <= _MAX_BYTES and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise SettingsError(
        "TMPDIR",
        "",
        f"expected a folder that can be written and whose path has at most {_MAX_BYTES} bytes, for Ray's sockets lie below it, received "
        f"{tempfile.gettempdir()}, and found neither XDG_RUNTIME_DIR, /tmp nor /var/tmp instead",
    )
