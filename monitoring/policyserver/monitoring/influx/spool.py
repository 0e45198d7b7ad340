"""The queue in front of InfluxDB: line protocol on disk, in a folder that belongs to one process.

A folder holds segments (`00000001.lp`, ...), a cursor (the segment and byte up to which everything is delivered) and a lock. The process
holds the lock as long as it lives; a folder whose lock is free is an orphan, which the process that takes the lock adopts. What `append`
took survives the death of the process, but not of the machine: nothing is synchronised to disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from policyserver.common.file_lock import FileLock
from policyserver.monitoring.trouble import Trouble

logger = logging.getLogger(__name__)

_SEGMENT = "{:08d}.lp"
_LOCK = "lock"
_CURSOR = "cursor"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the queue: a segment's number, and a byte in the segment."""

    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines read from the queue, and where they begin and end."""

    data: bytes
    start: Position
    end: Position

    @property
    def lines(self) -> list[bytes]:
        """The lines, each with its line break."""
        return self.data.splitlines(keepends=True)


class Spool:
    """The queue in one folder. One thread may `append` while another reads; `advance` and `append` must not overlap."""

    def __init__(self, folder: Path, lock: FileLock, segment_bytes: int) -> None:
        """Take a folder whose lock this process holds; use `create` and `adopt`."""
        self.folder = folder
        self._lock = lock
        self._segment_bytes = segment_bytes
        self._unwritten, self._unremoved = (Trouble(logger, f"spool {folder.name}") for _ in range(2))
        self._write_fd = self._read_fd = -1
        self._is_torn = False
        try:
            numbers = self._segments()
            newest = numbers[-1] if numbers else 1
            self._write_fd = self._open_to_append(newest)
            self._end = Position(newest, self._cut_torn_line())
            self._position = self._read_cursor(numbers[0] if numbers else 1)
            sizes = (self._path(number).stat().st_size for number in range(self._position.segment, newest + 1))
            self.backlog_bytes = sum(sizes) - self._position.offset
            """Bytes not yet delivered."""
        except BaseException:
            self.abandon()  # or no process could adopt it as long as this one lives
            raise

    @classmethod
    def create(cls, root: Path, segment_bytes: int) -> Spool:
        """Make a new folder for this process under `root`."""
        while True:
            folder = root / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            folder.mkdir(parents=True)
            if (lock := _locked(folder)) is not None:  # else a process that looks for orphans took the folder before this one locked it
                return cls(folder, lock, segment_bytes)

    @classmethod
    def adopt(cls, folder: Path, segment_bytes: int) -> Spool | None:
        """Adopt a folder whose process is dead; None if it lives, if it holds no segment, or if there is no such folder any more.

        Raises:
            OSError: The folder can't be used, for example because it belongs to another user.
        """
        try:
            if not _segments_of(folder):  # it is no spool: not even a lock is left in it
                return None
        except FileNotFoundError:
            return None
        lock = _locked(folder)
        return None if lock is None else cls(folder, lock, segment_bytes)

    def append(self, data: bytes) -> None:
        """Add whole lines, all or none.

        Raises:
            OSError: The disk doesn't take them.
        """
        if self._is_torn:
            self._cut_to_end()
        if self._end.offset >= self._segment_bytes:
            self._begin_segment()
        try:
            written = os.write(self._write_fd, data)
            if written != len(data):
                raise OSError(f"expected to write {len(data)} bytes, wrote {written}; the disk is full")
        except OSError:
            self._is_torn = True
            self._cut_to_end()
            raise
        self._end = Position(self._end.segment, self._end.offset + written)
        self.backlog_bytes += written

    def read(self, max_bytes: int) -> Chunk | None:
        """Read the next undelivered lines, at most `max_bytes` unless the first line is longer; None if there are none."""
        while True:
            start, appended = self._position, self._end
            if self._read_fd < 0:
                self._read_fd = os.open(self._path(start.segment), os.O_RDONLY | os.O_CLOEXEC)
            size = appended.offset if start.segment == appended.segment else os.fstat(self._read_fd).st_size
            data = self._read_lines(start.offset, size, max_bytes)
            if data:
                return Chunk(data, start, Position(start.segment, start.offset + len(data)))
            if start.segment == appended.segment:
                return None
            self._next_segment()

    def advance(self, position: Position) -> None:
        """Note that everything before `position` is delivered."""
        self.backlog_bytes -= position.offset - self._position.offset
        self._set_position(position)

    def undelivered_lines(self, before_block: Callable[[], None] = lambda: None) -> int:
        """Count the undelivered lines. Reads them all, a block at a time; `before_block` may raise to end that."""
        count = 0
        for number in range(self._position.segment, self._end.segment + 1):
            with self._path(number).open("rb") as file:
                file.seek(self._position.offset if number == self._position.segment else 0)
                before_block()
                while block := file.read(1 << 20):
                    count += block.count(b"\n")
                    before_block()
        return count

    def close(self) -> None:
        """Release the folder, and remove it if everything in it is delivered. Closing again does nothing."""
        if self._write_fd >= 0:
            with contextlib.suppress(OSError):  # what can't be read stays, for the next that adopts it
                if self.read(1) is None:
                    self._remove()
            self.abandon()

    def _remove(self) -> None:
        """Remove what the spool made, and the folder if that was all: any other file stays."""
        own = [_CURSOR, f"{_CURSOR}.new", *_segments_of(self.folder), _LOCK]
        for name in own:  # the lock last: who finds no segment any more adopts nothing
            (self.folder / name).unlink(missing_ok=True)
        self.folder.rmdir()

    def abandon(self) -> None:
        """Close the files and leave the folder as it is. After a fork, the parent still holds the lock."""
        open_fds = [fd for fd in (self._read_fd, self._write_fd) if fd >= 0]
        self._read_fd = self._write_fd = -1  # first: a descriptor is closed, too, where the folder answers with an error
        with contextlib.ExitStack() as ending:
            ending.callback(self._lock.release)
            for fd in open_fds:
                ending.callback(os.close, fd)

    def _segments(self) -> list[int]:
        """Return the numbers of the segments that are there, in order."""
        return sorted(int(Path(name).stem) for name in _segments_of(self.folder))

    def _path(self, segment: int) -> Path:
        return self.folder / _SEGMENT.format(segment)

    def _open_to_append(self, segment: int) -> int:
        return os.open(self._path(segment), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _read_lines(self, offset: int, end: int, max_bytes: int) -> bytes:
        """Read whole lines between two places of the current segment: as many as `max_bytes` hold, or the first if that is longer."""
        while data := os.pread(self._read_fd, min(max_bytes, end - offset), offset):
            whole = data.rfind(b"\n") + 1
            if whole or offset + len(data) >= end:
                return data[:whole]
            max_bytes *= 2
        return b""

    def _cut_torn_line(self) -> int:
        """Cut off the end of the newest segment if it is no whole line, because `append` never returned; return the size left."""
        size = os.fstat(self._write_fd).st_size
        block = 1 << 16
        end = size
        while end > 0:
            start = max(0, end - block)
            line_break = os.pread(self._write_fd, end - start, start).rfind(b"\n")
            if line_break >= 0:
                end = start + line_break + 1
                break
            end = start
        if end != size:
            os.ftruncate(self._write_fd, end)
        return end

    def _cut_to_end(self) -> None:
        """Cut off what `append` wrote in vain."""
        os.ftruncate(self._write_fd, self._end.offset)
        self._is_torn = False

    def _begin_segment(self) -> None:
        """Append to a new segment from now on."""
        fd = self._open_to_append(self._end.segment + 1)
        before, self._write_fd = self._write_fd, fd
        self._end = Position(self._end.segment + 1, 0)
        os.close(before)

    def _next_segment(self) -> None:
        """Read the next segment from now on, and remove what is delivered; what can't be removed is tried again with the next one."""
        before, self._read_fd = self._read_fd, -1
        os.close(before)
        self._set_position(Position(self._position.segment + 1, 0))
        try:
            for delivered in self._segments():
                if delivered < self._position.segment:
                    self._path(delivered).unlink()
            self._unremoved.is_over("what is delivered is removed again")
        except OSError as error:
            self._unremoved.occurred(
                type(error).__name__, f"what is delivered can't be removed, trying again with the next segment: {error}"
            )

    def _read_cursor(self, first_segment: int) -> Position:
        """Read where delivery stands: at the beginning if the cursor is missing or damaged, because delivering twice is harmless."""
        beginning = Position(first_segment, 0)
        try:
            segment, offset = map(int, (self.folder / _CURSOR).read_text().split())
            size = self._path(segment).stat().st_size
        except (OSError, ValueError):
            return beginning
        return Position(segment, offset) if 0 <= offset <= size and segment >= first_segment else beginning

    def _set_position(self, position: Position) -> None:
        """Move the cursor, as a whole. If the disk is full the file stays behind, and an adopter delivers some lines again."""
        self._position = position
        temporary = self.folder / f"{_CURSOR}.new"
        try:
            temporary.write_text(f"{position.segment} {position.offset}\n")
            temporary.replace(self.folder / _CURSOR)
            self._unwritten.is_over("the cursor is written again")
        except OSError as error:
            self._unwritten.occurred(type(error).__name__, f"the cursor can't be written: {error}")


def _segments_of(folder: Path) -> list[str]:
    """Return the names of the segments in a folder, in no order; unlike `Path.glob`, raise where the folder can't be read."""
    return [name for name in os.listdir(folder) if (path := Path(name)).suffix == ".lp" and path.stem.isdecimal()]


def _locked(folder: Path) -> FileLock | None:
    """Lock a folder; None if another process holds it or has just removed it."""
    lock = FileLock(folder / _LOCK)
    try:
        return lock if lock.take() else None
    except FileNotFoundError:
        return None
