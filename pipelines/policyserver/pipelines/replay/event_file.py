"""The file of an event log: an Arrow IPC stream that grows, and beside it the checksums of what of it is whole.

    events.arrows    one record batch for each flush, one row for each turn; any reader of Arrow streams opens it
    events.crc32     a line for each flush: bytes of the stream so far and their CRC-32, in the end with a word that says why it ended

What lies behind the last line was being written when the process was killed, and is left out. What lies before it has to be as it was
written.
"""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import pyarrow as pa

from policyserver.pipelines.replay.columns import GROUPS, ActionType, LogColumn, group_columns, group_lengths
from policyserver.pipelines.replay.turn import NOTHING, Turn

EVENTS, SUMS = "events.arrows", "events.crc32"
"""Names of the two files in a run's folder."""

VERSION = "1"
"""Of the columns; a log of another version is not replayed."""

WALL = ("call_s", "wall_ns")
"""Columns that tell of the wall clock, and differ between a run and its replay."""

EndWord = Literal["end", "full", "behind"]
"""Why a log ended: with its run; it had its bytes; its writer could not keep up."""

_KEY_VERSION, _KEY_DTYPE, _KEY_SHAPE = b"policyserver.event_log", b"action.dtype", b"action.shape"
_CHUNK_BYTES = 1 << 20
_CUT_SUM = re.compile(rb"\d*(?: [0-9a-f]{0,8}(?:(?<= [0-9a-f]{8}) (?:e|en|end|f|fu|ful|full|b|be|beh|behi|behin|behind)?)?)?")
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")
_END_BYTES = 64
"""Kept free for the mark of Arrow at the end of a stream."""


class EventFileError(ValueError):
    """An event log can't be read: it is missing, of another version, or damaged."""


class EventFile:
    """Writes an event log. Belongs to one thread."""

    def __init__(self, folder: Path, action: ActionType, max_bytes: int) -> None:
        """Begin an empty log in a folder that has none.

        Raises:
            OSError: The folder can't be written, or has a log.
        """
        self._action = action
        self._max_bytes = max_bytes
        self._crc = 0
        self.size = 0
        """Bytes of the stream so far."""
        self._events: BinaryIO = (folder / EVENTS).open("xb", buffering=0)
        self._sums: BinaryIO = (folder / SUMS).open("xb", buffering=0)
        self._pending = _Pending()
        self._unwritten: deque[tuple[BinaryIO, memoryview]] = deque()
        """What the files have not, in the order in which it has to be written."""
        self._schema = _schema(action)
        self._writer = pa.ipc.new_stream(self._pending, self._schema, options=_OPTIONS)
        self._writer.write_batch(to_batch([], action, self._schema))  # the columns are there from the start
        self._append("")

    def write(self, turns: Sequence[Turn]) -> bool:
        """Append turns as one batch, unless there is no room for it; return whether there was.

        Raises:
            OSError: The file can't be written now; `go_on` writes what is left of the batch.
        """
        self._writer.write_batch(to_batch(turns, self._action, self._schema))
        if self.size + self._pending.size + _END_BYTES > self._max_bytes:
            self._pending.take()
            return False
        self._append("")
        return True

    def go_on(self) -> None:
        """Write what an attempt before left unwritten, from where it stopped.

        Raises:
            OSError: The file still can't be written.
        """
        while self._unwritten:
            file, data = self._unwritten[0]
            while data:
                data = data[file.write(data) :]
                self._unwritten[0] = file, data
            self._unwritten.popleft()

    def close(self, word: EndWord | None) -> None:
        """End the log and say why; None leaves it without an end, as a kill does.

        Raises:
            OSError: The file can't be written.
        """
        try:
            if word is not None:
                self._writer.close()
                self._append(f" {word}")
        finally:
            self._events.close()
            self._sums.close()

    def _append(self, word: str) -> None:
        data = self._pending.take()
        self._crc = zlib.crc32(data, self._crc)
        self.size += len(data)
        self._unwritten.append((self._events, memoryview(data)))
        self._unwritten.append((self._sums, memoryview(f"{self.size} {self._crc:08x}{word}\n".encode())))
        self.go_on()


@dataclass(frozen=True, slots=True)
class LogState:
    """What of an event log is whole."""

    batches: int
    """Batches that are."""
    n_bytes: int
    """Bytes that are."""
    cut_bytes: int
    """Bytes behind them, which are left out."""
    end: EndWord | None
    """Why it ended; None: its process was killed."""


class EventLogReader:
    """Reads an event log."""

    def __init__(self, folder: Path) -> None:
        """Find what of the log is whole.

        Raises:
            EventFileError: It is missing, of another version, or damaged.
        """
        self._path = folder / EVENTS
        try:
            self.state = _verified(self._path, folder / SUMS)
        except OSError as error:
            raise EventFileError(f"{error.filename}: expected an event log, received {error.strerror}") from error
        if self.state.n_bytes == 0:
            raise EventFileError(f"{self._path}: expected an event log, received one that was cut before its first column")
        with pa.OSFile(str(self._path)) as file:
            metadata = pa.ipc.open_stream(file).schema.metadata or {}
        version = metadata.get(_KEY_VERSION, b"none").decode()
        if version != VERSION:
            raise EventFileError(f"{self._path}: expected an event log of version {VERSION}, received version {version}")
        shape = tuple(int(part) for part in metadata[_KEY_SHAPE].decode().split("x") if part)
        self.action = ActionType(metadata[_KEY_DTYPE].decode(), shape)

    def batches(self) -> Iterator[list[Turn]]:
        """Yield the turns, a flush at a time."""
        with pa.OSFile(str(self._path)) as file:
            reader = pa.ipc.open_stream(file)
            for _ in range(self.state.batches):
                if turns := from_batch(reader.read_next_batch(), self.action):
                    yield turns


def to_batch(turns: Sequence[Turn], action: ActionType, schema: pa.Schema | None = None) -> pa.RecordBatch:
    """Return turns as a record batch, a row for each."""
    arrays: list[Any] = [
        pa.array(np.array([turn.block for turn in turns], dtype=np.int32)),
        pa.array([turn.is_abandoned for turn in turns], pa.bool_()),
    ]
    for group, columns in GROUPS.items():
        values = [_arrow(column, each, action) for column, each in zip(columns, group_columns(group, turns, action), strict=True)]
        offsets = np.concatenate(([0], np.cumsum(group_lengths(group, turns)))).astype(np.int32)
        rows = pa.StructArray.from_arrays(values, fields=list(_struct(group, action)))
        arrays.append(pa.ListArray.from_arrays(pa.array(offsets), rows, type=pa.list_(_struct(group, action))))
    arrays.append(pa.array(np.array([turn.call_s for turn in turns])))
    arrays.append(pa.array(np.array([turn.wall_ns for turn in turns], dtype=np.int64)))
    return pa.RecordBatch.from_arrays(arrays, schema=schema or _schema(action))


def from_batch(batch: pa.RecordBatch, action: ActionType) -> list[Turn]:
    """Return the turns of a record batch."""
    turns = [Turn(block) for block in batch.column("block").to_pylist()]
    for name in ("is_abandoned", *WALL):
        for turn, value in zip(turns, batch.column(name).to_pylist(), strict=True):
            setattr(turn, name, value)
    for group in GROUPS:
        lists = batch.column(group)
        offsets, rows = lists.offsets.to_numpy().tolist(), lists.values
        values = [_numbers(rows.field(place)) for place in range(rows.type.num_fields)]
        for turn, first, last in zip(turns, offsets, offsets[1:], strict=False):
            setattr(turn, group, tuple(each[first:last] for each in values) if last > first else NOTHING)
    return turns


def _numbers(array: pa.Array) -> Any:
    if pa.types.is_fixed_size_list(array.type):
        return array.values.to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)
    return array.to_numpy(zero_copy_only=False)


def _arrow(column: LogColumn, values: Any, action: ActionType) -> pa.Array:
    if column.dtype:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), action.width)


def _struct(group: str, action: ActionType) -> pa.StructType:
    types = [
        pa.from_numpy_dtype(np.dtype(column.dtype)) if column.dtype else pa.list_(pa.from_numpy_dtype(np.dtype(action.dtype)), action.width)
        for column in GROUPS[group]
    ]
    return pa.struct([pa.field(column.name, type_) for column, type_ in zip(GROUPS[group], types, strict=True)])


def _schema(action: ActionType) -> pa.Schema:
    fields = [pa.field("block", pa.int32()), pa.field("is_abandoned", pa.bool_())]
    fields += [pa.field(group, pa.list_(_struct(group, action))) for group in GROUPS]
    fields += [pa.field("call_s", pa.float64()), pa.field("wall_ns", pa.int64())]
    shape = "x".join(str(part) for part in action.shape)
    return pa.schema(fields, {_KEY_VERSION: VERSION, _KEY_DTYPE: action.dtype, _KEY_SHAPE: shape})


def _verified(events: Path, sums: Path) -> LogState:
    """Compare a stream with its checksums.

    Raises:
        EventFileError: A byte before the last whole line of the sums is another one.
    """
    *lines, cut = sums.read_bytes().split(b"\n")
    if not _CUT_SUM.fullmatch(cut):
        raise EventFileError(f"{sums}:{len(lines) + 1}: expected the beginning of a line, received {cut!r}: it is damaged")
    crc = position = 0
    end: EndWord | None = None
    with events.open("rb") as file:
        for number, line in enumerate(lines, start=1):
            offset, expected, end = _sum_of(line, f"{sums}:{number}", is_last=number == len(lines))
            while position < offset:
                chunk = file.read(min(_CHUNK_BYTES, offset - position))
                if not chunk:
                    raise EventFileError(f"{events}: expected {offset} bytes, received {position}: the file is damaged")
                crc = zlib.crc32(chunk, crc)
                position += len(chunk)
            if position != offset or crc != expected:
                raise EventFileError(f"{events}: expected the bytes up to {offset} as they were written, received others: it is damaged")
    size = events.stat().st_size
    if end is not None and size > position:
        raise EventFileError(f"{events}: expected {position} bytes, received {size}: the file is damaged")
    return LogState(len(lines) - (end is not None), position, size - position, end)


def _sum_of(line: bytes, place: str, *, is_last: bool) -> tuple[int, int, EndWord | None]:
    words: list[Any] = line.decode("ascii", "replace").split(" ")
    try:
        end = words[2] if len(words) == 3 else None
        if len(words) not in (2, 3) or end not in (None, *get_args(EndWord)) or (end and not is_last):
            raise ValueError
        return int(words[0]), int(words[1], 16), end
    except ValueError:
        raise EventFileError(f"{place}: expected a number of bytes and a checksum, received {line!r}: it is damaged") from None


class _Pending:
    """What a stream's writer has written and the file has not: a file for Arrow."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self.size += len(part)
        return len(part)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts, self.size = [], 0
        return data

    def flush(self) -> None:
        return

    def tell(self) -> int:
        return self.size

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        return
