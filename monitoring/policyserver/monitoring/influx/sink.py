"""InfluxDB sink: a spool on disk is the queue, and one thread delivers it with influxdb-client.

`write` returns when the lines are in the spool; from then on the process may die without losing them. The database takes a point twice
without harm (same series and time), so a delivery in doubt is repeated. A batch that the database refuses as wrong (400, 413, 422) is
halved down to the bad lines, which go to the dead-letter file. After any other answer than 204 ("stored") it is sent again, for ever. What
the system refuses for a while (too many open files, an I/O error) is tried again, too; a spool that can't be adopted is looked at again.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import time
import weakref

from influxdb_client import InfluxDBClient

from policyserver.monitoring.background_sink import BackgroundSink
from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.request import Answer, Verdict, WriteRequests, client_of, longest_request_s
from policyserver.monitoring.influx.spool import Chunk, Position, Spool
from policyserver.monitoring.line_protocol import encode, tag_suffix
from policyserver.monitoring.points import Points
from policyserver.monitoring.trouble import Trouble

logger = logging.getLogger(__name__)


_CLOSING_S = 2.0
"""Longest time from the end of a request to that of the thread, seconds."""


class _Stopped(Exception):
    """The sink closes and its time is up."""


class InfluxSink(BackgroundSink):
    """Sink into InfluxDB 1.8 or newer, or anything that takes its v2 writes. After a fork, parent and child have a spool each."""

    _FAILED = "delivery failed for good, what is in the spool stays there"

    def __init__(self, config: InfluxConfig, client: InfluxDBClient | None = None) -> None:
        """Make the spool, adopt those of dead processes, and start delivering; the database need not be there.

        Args:
            config: Settings; `InfluxConfig.from_environment`, `from_file` and `for_client` make them.
            client: Your own client; its address, token, timeout, TLS and compression replace those in `config`. Close it after the sink.
                A forked child forgets its connections, which belong to the parent.

        Raises:
            OSError: The spool folder can't be made.
        """
        self.config = config
        self._own_client = client
        self._tag_suffix = tag_suffix(config.tags)
        config.spool_folder.mkdir(parents=True, exist_ok=True)
        self._start()
        atexit.register(self.close, config.exit_timeout_s)
        _sinks.add(self)

    def _start(self) -> None:
        """Begin with an empty spool and counters at 0."""
        self.place = self.config.place
        self._reset(logger, f"InfluxDB at {self.config.location}", "influx-shipper")
        self._unread, self._not_adopted = (Trouble(logger, self._subject) for _ in range(2))
        self._adopt_at = 0.0
        self._wake_at_bytes = math.inf
        self._dead_letters_lost = False
        self._spool = Spool.create(self.config.spool_folder, self.config.segment_bytes)
        self._orphan: Spool | None = None
        self._client = self._own_client or client_of(self.config)
        self._under_way_s = longest_request_s(self._client, self.config) + _CLOSING_S
        self._requests = WriteRequests(self._client, self.config)
        self._thread.start()

    def write(self, points: Points) -> None:
        """Put a batch into the spool. Overflow policy: what doesn't fit into `max_spool_bytes` is dropped and counted."""
        try:
            data = encode(points, self._tag_suffix)
        except ValueError as error:
            logger.error("points put aside, they can't be encoded: %s", error)
            with self._changed:
                self._accepted += len(points)
                self._dead_lettered += len(points)
                self._last_error = str(error)
            return
        count = data.count(b"\n")
        with self._changed:
            if why_not := self._append(data):
                self._drop(count, why_not)
                return
            self._accept(count, is_half_empty=2 * self._spool.backlog_bytes <= self.config.max_spool_bytes)
            if self._spool.backlog_bytes >= self._wake_at_bytes:  # once, so that no write wakes the thread while it works or waits
                self._wake_at_bytes = math.inf
                self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Deliver for at most `timeout_s` (a request under way may take `request_timeout_s` more), then stop, whatever is left.

        The rest stays in the spool, and the next sink with the same `spool_folder` delivers it. Closing again does nothing.
        """
        super().close(timeout_s)
        atexit.unregister(self.close)
        _sinks.discard(self)

    def _restart_in_child(self) -> None:
        """Leave the spools to the parent and begin anew."""
        for spool in (self._spool, self._orphan):
            if spool is not None:
                spool.abandon()
        if self._own_client is not None:
            self._own_client.api_client.rest_client.pool_manager.clear()
        self._start()

    def _append(self, data: bytes) -> str:
        """Append to the spool; return why that isn't possible, or ""."""
        if self._closing_by is not None:
            return "the sink is closed"
        if self._spool.backlog_bytes + len(data) > self.config.max_spool_bytes:
            return "max_spool_bytes is reached, the database is behind"
        try:
            self._spool.append(data)
        except OSError as error:
            return f"the spool can't be written: {error}"
        return ""

    def _work(self) -> None:
        """Deliver until the sink is closed, and the spool is empty or time is up. Points of adopted spools count as accepted."""
        try:
            while self._work_on():
                pass
        except _Stopped:
            logger.warning("%s: closed with %d points left in the spool", self._subject, self.statistics().backlog)

    def _work_on(self) -> bool:
        """Deliver what there is next, or wait for it; False once the sink is closed and the spool empty."""
        try:
            if time.monotonic() >= self._adopt_at:
                self._deliver_orphans()
                self._adopt_at = time.monotonic() + self.config.adopt_interval_s
            if self._wait_for_lines(self._adopt_at):
                self._ship_next(self._spool)
                self._unread.is_over("the spool is read again")
            elif self._closing_by is not None:
                return False
        except OSError as error:
            with self._changed:
                self._last_error = f"the spool can't be read, trying again: {error}"
                self._unread.occurred(type(error).__name__, self._last_error)
                self._pause(self.config.retry_min_s)
        return True

    def _give_back(self) -> None:
        if self._own_client is None:
            self._client.close()
        self._spool.close()

    def _wait_for_lines(self, until: float) -> bool:
        """Wait for lines in the spool and let more gather; False if none came until the time `until` or until the sink closes."""
        with self._changed:
            self._wake_at_bytes = 1
            self._changed.wait_for(lambda: self._spool.backlog_bytes or self._closing_by is not None, max(0.0, until - time.monotonic()))
            if self._spool.backlog_bytes:
                self._wake_at_bytes = self.config.request_bytes
                self._changed.wait_for(self._is_urgent, self.config.gather_s)
            self._wake_at_bytes = math.inf
            return self._spool.backlog_bytes > 0

    def _is_urgent(self) -> bool:
        """Whether lines should be sent now."""
        flushing = self._flush_upto > self._done
        return flushing or self._closing_by is not None or self._spool.backlog_bytes >= self.config.request_bytes

    def _deliver_orphans(self) -> None:
        """Adopt the spools of processes that died, and deliver them. One that can't be used holds up no other."""
        try:
            folders, unusable = sorted(self.config.spool_folder.iterdir()), False
        except OSError as error:
            folders, unusable = [], True
            self._note_unusable("", error)
        for folder in folders:
            self._stop_if_late()
            try:
                if folder.is_dir() and (spool := Spool.adopt(folder, self.config.segment_bytes)) is not None:
                    self._deliver_orphan(spool)
            except OSError as error:
                unusable = True
                self._note_unusable(folder.name, error)
        if not unusable:
            self._not_adopted.is_over("all spools of other processes can be delivered")

    def _note_unusable(self, name: str, error: OSError) -> None:
        with self._changed:
            self._last_error = f"the spool of another process can't be delivered, its points stay there: {error}"
            self._not_adopted.occurred(name, f"{self._last_error}; trying again every {self.config.adopt_interval_s:g} s")

    def _deliver_orphan(self, spool: Spool) -> None:
        """Deliver the spool of a process that died, to its end."""
        self._orphan = spool
        left = 0
        try:
            left = spool.undelivered_lines(self._stop_if_late)
            logger.info("adopted %d points of a process that ended (%s)", left, spool.folder.name)
            with self._changed:
                self._accepted += left
            while shipped := self._ship_next(spool):
                left -= shipped
        except OSError:
            with self._changed:  # the next look at the spool counts them
                self._accepted -= left
            raise
        finally:
            self._orphan = None
            spool.close()

    def _ship_next(self, spool: Spool) -> int:
        """Deliver the spool's next chunk and return how many lines it had; 0 if the spool is empty."""
        chunk = spool.read(self.config.request_bytes)
        if chunk is None:
            return 0
        self._ship(spool, chunk)
        return chunk.data.count(b"\n")

    def _ship(self, spool: Spool, chunk: Chunk) -> None:
        """Deliver a chunk from its first line to its last, and move the cursor along."""
        pending = [chunk.lines]
        offset = chunk.start.offset
        refusals: list[str] = []
        while pending:
            lines = pending.pop()
            refusal = self._deliver(b"".join(lines))
            if refusal and len(lines) > 1:
                middle = len(lines) // 2
                pending += [lines[middle:], lines[:middle]]
                continue
            if refusal:
                self._bury(lines[0], refusal)
                refusals.append(refusal)
            offset += sum(map(len, lines))
            self._settle(spool, Position(chunk.start.segment, offset), len(lines), refusal)
        if refusals:
            logger.warning("InfluxDB at %s: %d points were refused, the first: %s", self.config.location, len(refusals), refusals[0])

    def _settle(self, spool: Spool, upto: Position, count: int, refusal: str) -> None:
        """Count lines that were stored or refused, and move the cursor past them."""
        with self._changed:
            spool.advance(upto)
            if refusal:
                self._dead_lettered += count
                self._last_error = f"a point was refused: {refusal}"
            else:
                self._stored += count
            self._changed.notify_all()

    def _deliver(self, data: bytes) -> str:
        """Send lines until the database takes or refuses them; return why it refuses them, or "". Raises _Stopped when time is up."""
        delay_s = self.config.retry_min_s
        self._stop_if_late()
        while (answer := self._requests.send(data)).verdict is Verdict.UNKNOWN:
            self._back_off(answer, delay_s)
            delay_s = min(2.0 * delay_s, self.config.retry_max_s)
        with self._changed:
            self._absence.is_over(f"it takes points again, {self._accepted - self._done:,} had waited")
        return answer.text

    def _back_off(self, answer: Answer, delay_s: float) -> None:
        """Note a failure, and wait before the next attempt."""
        with self._changed:
            self._last_error = f"trying again until it takes the points, which wait on disk: {answer.text}"
            self._absence.occurred(answer.kind, self._last_error)
            self._pause(delay_s)

    def _pause(self, delay_s: float) -> None:
        """Wait under the lock, not longer than the sink may take to close. Raises _Stopped when time is up."""
        if self._closing_by is None:
            self._changed.wait_for(lambda: self._closing_by is not None, delay_s)
            return
        self._stop_if_late()
        self._changed.wait(min(delay_s, max(0.0, self._closing_by - time.monotonic())))

    def _stop_if_late(self) -> None:
        if self._is_late:
            raise _Stopped

    def _bury(self, line: bytes, refusal: str) -> None:
        """Append a line to the dead-letter file, below a comment that says why.

        Overflow policy: if the file has reached `max_dead_letter_bytes` or can't be written, the line is counted and not kept.
        """
        why_not = "is full"
        try:
            with self.config.dead_letter_file.open("ab") as file:
                if file.tell() < self.config.max_dead_letter_bytes:
                    file.write(f"# {refusal}\n".encode() + line)
                    return
        except OSError as error:
            why_not = f"can't be written ({error.strerror})"
        if not self._dead_letters_lost:
            self._dead_letters_lost = True
            path = self.config.dead_letter_file
            logger.error("%s %s; refused points are counted and no longer kept: %s", path, why_not, refusal)


_sinks: weakref.WeakSet[InfluxSink] = weakref.WeakSet()


def _restart_all_in_child() -> None:
    for sink in tuple(_sinks):
        try:
            sink._restart_in_child()
        except OSError as error:
            logger.error("%s: the spool of a forked process can't be made, so its points are dropped: %s", sink._subject, error)


os.register_at_fork(after_in_child=_restart_all_in_child)
