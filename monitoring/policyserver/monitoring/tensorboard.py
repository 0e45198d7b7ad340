"""Points as event files of TensorBoard: a sink beside the store and InfluxDB."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policyserver.monitoring.background_sink import BackgroundSink
from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import NODE, REGRESSOR, RESULT, SERVER, TRAIN, FieldType

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

logger = logging.getLogger(__name__)

_STEP_OF = {TRAIN.name: "iteration", RESULT.name: "episodes", REGRESSOR.name: "", SERVER.name: "uptime_s", NODE.name: ""}
"""The measurements that are drawn, each with the field that TensorBoard counts as its step; without one the steps are seconds."""
_TOLD_APART_BY = {SERVER.name: "worker", NODE.name: "node"}
"""The tag that the curves of a measurement are told apart by."""

_MOST_WAITING = 20_000
"""Points that may wait to be written; a process makes some ten a second."""

_MOST_AT_ONCE = 500
"""Batches that are written without a look at the time that the sink may take to close."""


class TensorBoardSink(BackgroundSink):
    """Appends scalars to event files in a folder, of which the oldest are deleted once they are too large together."""

    place = ""
    _FAILED = "the writer failed, nothing more is drawn"

    def __init__(self, folder: Path, max_bytes: int = 64 * 2**20) -> None:
        """Make the folder, and start the thread.

        Raises:
            OSError: The folder can't be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._max_bytes = folder, max_bytes
        self._queue: list[Points] = []
        self._queued = 0
        self._begun_s = time.time()
        self._writer: EventsWriter | None = None
        self._reset(logger, f"TensorBoard's files in {folder}", "tensorboard-writer")
        self._thread.start()

    def write(self, points: Points) -> None:
        """Queue a batch, if it is of what is drawn. Overflow policy: a batch that finds the queue full is dropped and counted."""
        if points.measurement not in _STEP_OF:
            return
        count = len(points)
        with self._changed:
            if self._closing_by is not None or self._queued + count > _MOST_WAITING:
                self._drop(count, "the sink is closed" if self._closing_by is not None else "too many wait")
                return
            self._accept(count, is_half_empty=2 * self._queued <= _MOST_WAITING)
            self._queue.append(points)
            self._queued += count
            self._changed.notify_all()

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            count, drawn = sum(map(len, batch)), self._draw(batch)
            with self._changed:
                self._queued -= count
                self._stored += count if drawn else 0
                self._dead_lettered += 0 if drawn else count
                self._changed.notify_all()
            try:
                self._keep_small()
            except OSError as error:
                self._note(f"old files can't be deleted: {error}")

    def _draw(self, batch: list[Points]) -> bool:
        """Write a batch; return whether that is done. These are lost if not, as on a full disk, and the next ones may not be."""
        try:
            for points in batch:
                self._append(points)
            if self._writer is not None:
                self._writer.flush()
                self._absence.is_over("they are written again")
        except OSError as error:
            self._note(f"points are lost: {error}")
            self._close_file()
            return False
        return True

    def _note(self, trouble: str) -> None:
        with self._changed:
            self._last_error = trouble
        self._absence.occurred(trouble, trouble)

    def _take(self) -> list[Points] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing_by is not None)
            if not self._queue:
                return None
            if self._is_late:
                logger.warning("%s: closed with %d points that are not drawn", self._subject, self._queued)
                return None
            batch, self._queue = self._queue[:_MOST_AT_ONCE], self._queue[_MOST_AT_ONCE:]
            return batch

    def _append(self, points: Points) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        if self._writer is None:
            self._writer = EventsWriter(
                str(self._folder / "events"), f".{time.time_ns()}"
            )  # a file of the same second would be overwritten
        for time_ns, tag, values in _scalars(points):
            step = values.get(_STEP_OF[points.measurement], time_ns * 1e-9 - self._begun_s)
            summary = summary_pb2.Summary(
                value=[summary_pb2.Summary.Value(tag=f"{tag}/{name}", simple_value=value) for name, value in values.items()]
            )
            self._writer.write_event(event_pb2.Event(wall_time=time_ns * 1e-9, step=max(int(step), 0), summary=summary))

    def _keep_small(self) -> None:
        """Go on in a new file once this one has half of all bytes, and delete the oldest files beyond."""
        files = sorted(self._folder.glob("events*"), key=lambda file: file.stat().st_mtime_ns)
        sizes = [file.stat().st_size for file in files]
        if files and sizes[-1] > self._max_bytes / 2:
            self._close_file()
        while len(files) > 1 and sum(sizes) > self._max_bytes:
            files.pop(0).unlink(missing_ok=True)
            sizes.pop(0)

    def _close_file(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None

    def _give_back(self) -> None:
        self._close_file()


def _scalars(points: Points) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Yield the time of each point, its name, and the numbers in it."""
    numbers = [name for name in points.columns if points.schema.types[name] in (FieldType.FLOAT, FieldType.INTEGER)]
    columns: list[list[Any]] = [points.field_values(name) for name in numbers]
    apart = points.tag_values(_TOLD_APART_BY[points.measurement]) if points.measurement in _TOLD_APART_BY else ""
    for row, time_ns in enumerate(points.times_ns.tolist()):
        one = apart if isinstance(apart, str) else apart[row]
        known = {name: float(column[row]) for name, column in zip(numbers, columns, strict=True) if column[row] is not None}
        yield time_ns, f"{points.measurement}/{one}" if one else points.measurement, known
