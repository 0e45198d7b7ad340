"""Which process has a run folder, on this machine or on another one that shares it.

A lock tells processes of one kernel apart, and ends with its process, however that ends. A folder on a network may be shared by machines
whose locks don't meet, so its owner also writes down who it is, with a number that it counts up every few seconds. A process of another
machine takes the folder once that number has stood still for as long as six of these intervals, by its own clock; no two clocks are
compared. The owner that was cut off for so long finds another name there, writes no checkpoint any more, and ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from policyserver.monitoring.trouble import Trouble
from policyserver.server.daemon.folder_lock import FolderInUseError, FolderLock

logger = logging.getLogger(__name__)

OWNER_FILE = "owner.json"
BEAT_S = 5.0
"""Seconds from one sign of life to the next."""
SILENCE_S = 30.0
"""Seconds without a sign of life after which the owner on another machine counts as dead, or as cut off."""
_LOOK_S = 1.0
_JOIN_TIMEOUT_S = 2.0
_MAX_BYTES = 1024
"""Length of the file, always: it is written in place, so that it needs no room on a full disk."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ClaimLeftError(Exception):
    """The claim was left before it was decided, because the server stops."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that has, or had, a folder."""

    host: str
    boot: str
    """Of the running kernel: locks meet between processes of one kernel, whatever their container's host name."""
    process: int
    since: str
    token: str
    beat: int = 0
    released: bool = False

    @classmethod
    def this_process(cls) -> Owner:
        """Describe this process, from now on."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname()[:255], _text(_BOOT_ID), os.getpid(), since, secrets.token_hex(16))

    def __str__(self) -> str:
        """Say which process it is."""
        return f"process {self.process} on {self.host} since {self.since}"

    def is_surely_dead(self, other: Owner) -> bool:
        """Whether a process that has the folder's lock knows that this one has ended: it said so, or the lock is of the same kernel.

        A machine that was started again can't be told from a container of the same image on another machine, which has its name and its
        machine id, too: there the silence decides.
        """
        return self.released or (bool(self.boot) and self.boot == other.boot)


class FolderOwner:
    """Holds a run folder for this process, until it is released or lost."""

    def __init__(
        self,
        folder: Path,
        on_loss: Callable[[str], None] = lambda why: None,
        wait: Callable[[float], bool] | None = None,
        *,
        beat_s: float = BEAT_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Claim the folder, which must exist; where an owner on another machine may be dead, that takes `silence_s`.

        Args:
            folder: The run folder.
            on_loss: Called, in a thread of this class, if another process takes the folder because this one was cut off; with the reason.
            wait: Waits so many seconds and returns whether to leave the claim.
            beat_s: Seconds from one sign of life to the next.
            silence_s: Seconds without one after which an owner on another machine is taken for dead.

        Raises:
            FolderInUseError: Another process holds it; the text names host and process, and since when.
            ClaimLeftError: `wait` has returned true.
        """
        self._folder, self._path = folder, folder / OWNER_FILE
        self._on_loss, self._beat_s = on_loss, beat_s
        self._ended = threading.Event()
        self._loss = ""
        wait = wait or (lambda seconds: self._ended.wait(seconds))
        self._me = Owner.this_process()
        self._lock = _lock(folder)
        try:
            found = self._read()
            taken = found is not None and not found.is_surely_dead(self._me)
            if found is not None and taken:
                self._wait_for_silence(found, wait, silence_s)
            self._fd = self._write_anew()
            try:
                if taken:  # two machines may have waited for the same silence; the later name stands
                    _pause(wait, 2 * _LOOK_S)
                    if (winner := self._read()) is not None and winner.token != self._me.token:
                        raise FolderInUseError(_refusal(folder, winner))
                    logger.warning("%s: taken over from %s, which has shown no sign of life for %g s", folder, found, silence_s)
            except BaseException:
                self._put_down()
                raise
        except BaseException:
            self._lock.release()
            raise
        self._trouble = Trouble(logger, "the run folder's owner")
        self._thread = threading.Thread(target=self._beat, name="folder-owner", daemon=True)
        self._thread.start()

    @property
    def loss(self) -> str:
        """Why this process has lost the folder, looked up now; "" while it has it. From any thread."""
        if not self._loss:
            with contextlib.suppress(OSError):
                found = self._read()
                if found is not None and found.token != self._me.token:
                    self._loss = f"{self._folder}: taken over by {found}, for this process was cut off from it; stop that one first"
        return self._loss

    def release(self) -> None:
        """Give the folder back. A second call does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join(_JOIN_TIMEOUT_S)  # which a folder that does not answer may outlast
        if not self._thread.is_alive():
            self._put_down()
        self._lock.release()

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_s):
            if loss := self.loss:
                logger.error("%s", loss)
                self._on_loss(loss)
                return
            self._me = replace(self._me, beat=self._me.beat + 1)
            try:
                if self._path.exists():
                    self._put(self._me)
                else:  # removed by hand
                    before, self._fd = self._fd, self._write_anew()
                    _close(before)
                self._trouble.is_over("written down again")
            except OSError as error:
                self._trouble.occurred(type(error).__name__, f"{self._path} can't be written, trying on: {error}")

    # The file -------------------------------------------------------------------------------------------------------------------------

    def _read(self) -> Owner | None:
        return _read(self._path)

    def _write_anew(self) -> int:
        """Replace the file by one of this process; what an earlier owner still writes goes into the file that it has open."""
        new = self._path.with_name(f".{OWNER_FILE}.{self._me.token}")
        new.unlink(missing_ok=True)  # of an attempt before, which the folder would not let be removed
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._put(self._me, fd)
            new.rename(self._path)
        except BaseException:
            _close(fd)
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        return fd

    def _put_down(self) -> None:
        """Say in the file that this process has the folder no longer, if it can be written, and close it."""
        with contextlib.suppress(OSError):
            self._put(replace(self._me, released=True))
        _close(self._fd)

    def _put(self, owner: Owner, fd: int | None = None) -> None:
        fd = self._fd if fd is None else fd
        os.pwrite(fd, json.dumps(asdict(owner)).encode().ljust(_MAX_BYTES - 1) + b"\n", 0)
        os.fdatasync(fd)  # or another machine does not see it

    def _wait_for_silence(self, found: Owner, wait: Callable[[float], bool], silence_s: float) -> None:
        logger.info("%s: the run of %s; looking for up to %.0f s whether that lives", self._folder, found, silence_s)
        for _ in range(max(1, round(silence_s / _LOOK_S))):
            _pause(wait, min(_LOOK_S, silence_s))
            seen = self._read()
            if seen is None or seen.released:
                return
            if (seen.token, seen.beat) != (found.token, found.beat):
                raise FolderInUseError(_refusal(self._folder, seen))


_FIELDS: dict[str, type] = {
    "host": str, "boot": str, "process": int, "since": str, "token": str, "beat": int, "released": bool,
}  # fmt: skip


def owner_elsewhere(folder: Path) -> Owner | None:
    """Return the process of another machine that has the folder, or had it when it died; None if a start need not wait to know.

    Raises:
        FolderInUseError: Another process of this machine holds it.
        OSError: The folder can't be read or written.
    """
    _lock(folder).release()
    found = _read(folder / OWNER_FILE)
    return None if found is None or found.is_surely_dead(Owner.this_process()) else found


def _read(path: Path) -> Owner | None:
    """Return who is written down; None if the file is not there. What can't be read is an owner of another machine."""
    try:
        with path.open("rb") as file:  # anew, for a network's file system to look again
            content = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    try:
        parsed = json.loads(content)
        return Owner(**{name: kind(parsed[name]) for name, kind in _FIELDS.items()})
    except (ValueError, TypeError, KeyError):
        return Owner("a host", "", 0, "a time", token=content.hex())


def _lock(folder: Path) -> FolderLock:
    """Take the folder's lock.

    Raises:
        FolderInUseError: Another process has it; named, if it has written down who it is.
    """
    try:
        return FolderLock(folder)
    except FolderInUseError as error:
        with contextlib.suppress(OSError, ValueError, KeyError):
            parsed = json.loads((folder / OWNER_FILE).read_bytes())
            if not parsed["released"]:
                owner = f"process {int(parsed['process'])} on {parsed['host']} since {parsed['since']}"
                raise FolderInUseError(_refusal(folder, owner)) from error
        raise


def _refusal(folder: Path, owner: Owner | str) -> str:
    return f"{folder}: in use by {owner}; stop that one or choose another folder"


def _pause(wait: Callable[[float], bool], seconds: float) -> None:
    if wait(seconds):
        raise ClaimLeftError("the server stops")


def _close(fd: int) -> None:
    """Close a descriptor, which is closed also where its folder answers with an error."""
    with contextlib.suppress(OSError):
        os.close(fd)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()[:64]
    except (OSError, ValueError):
        return ""
