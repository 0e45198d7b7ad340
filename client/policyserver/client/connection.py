"""One stream to one serving runner, shared by all threads of a client.

Three threads meet here. A *caller* queues its rows and sleeps on a lock of its own. The *sender* (gRPC's, which runs `_requests`) puts all
queued rows into one message as soon as fewer than `messages_in_flight` messages are unanswered. It also waits for callers that are about to
go on, until as many callers have asked as are about to go on or at the server, for `HOLD_BACK_MAX_S` at most: a lone caller never waits,
and a crowd travels in two halves, one at the server while the other is here. The *reader* (ours, `_run`) lets the callers of each reply go
on, through the client's wake-up queue; when the stream breaks, it connects again and queues the unanswered rows first, unchanged.

The client's lock (`shared.py`) guards everything here: the queue, the calls, the stream, the episodes. It is held for microseconds
and never across a wait, the making of a message, or I/O.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

import gymnasium as gym

from policyserver.client.config import ClientConfig
from policyserver.client.connection_errors import refusal_of, trouble_of
from policyserver.client.messages import NegotiatedSession, agree, handshake, step_batch, to_loads, to_reply
from policyserver.client.rows import OutgoingRows
from policyserver.client.runner_channel import RunnerChannel
from policyserver.client.shared import Shared
from policyserver.client.stream import ConnectionListener, Stream
from policyserver.client.wake_up_queue import HOLD_BACK_MAX_S, WAKE_UP_MAX_S, Call, CallPart
from policyserver.common.errors import (
    ActionTimeoutError,
    PolicyServerError,
    ServerUnavailableError,
    WireError,
)
from policyserver.common.streaming_calls import forget
from policyserver.v1 import policy_service_pb2 as pb

_log = logging.getLogger(__name__)
_JOIN_TIMEOUT_S = 5.0


class Connection:
    """The connection to one serving runner."""

    def __init__(
        self,
        target: str,
        config: ClientConfig,
        spaces: tuple[gym.Space[Any] | None, gym.Space[Any] | None],
        shared: Shared,
        listener: ConnectionListener[Connection],
    ) -> None:
        """Prepare a connection; nothing is opened before `start`. The caller expects `spaces` of observations and actions, if any.

        Raises:
            ValueError: plaintext off the machine, or a file that cannot be read.
        """
        self.target = target
        self.session: NegotiatedSession | None = None
        """The newest handshake; None before the first."""
        self.trouble: PolicyServerError | None = None
        """Why there is no connection now; None if there is one, or none was tried."""
        self.refusal: PolicyServerError | None = None
        """The trouble, if waiting does not help: one of REFUSALS."""
        self.failures = 0
        """Attempts to connect that failed."""
        self.epoch = 0
        """Number of different serving processes seen."""
        self.retires, self.stale_at_s = False, 0.0
        """Whether the serving process starts no new episodes now; and when its newest answer came if that was stale, else 0."""
        self.callers_waking = self.episodes_open = 0
        """See `Home`; the wake-up queue and `ClientEpisodes` count."""
        self.is_listed = True
        """The service has this runner. The balancer says so."""
        self._config = config
        self._spaces = spaces
        self._shared = shared
        self._lock = shared.lock
        self._changed = shared.changed
        self._listener = listener
        self._client_id = uuid.uuid4().hex
        self.channel = RunnerChannel(target, config)
        self._sendable = threading.Condition(shared.lock)
        """Told to the sender: something may be sent, or the stream is over."""
        self._queue: deque[CallPart] = deque()
        self._stream = Stream()
        self.rooms = 0
        """How often the server said that there is room for what it refused because the learner is behind."""
        self._messages_taken = 0
        self._asked_s = 0.0
        """When the oldest rows in the queue were put there."""
        self._looks_again = False
        """The sender wakes up by itself soon."""
        self._is_closed = False
        self._reader: threading.Thread | None = None

    @staticmethod
    def of(rows: OutgoingRows) -> Connection:
        """Return where to send rows: where the first episode is, and all the others once they are divided by runner."""
        return rows.episodes[0].connection  # type: ignore[return-value]  # a row's episode has one, and no other home

    @property
    def is_open(self) -> bool:
        """Tell whether rows may go out."""
        return self._stream.is_open

    @property
    def is_running(self) -> bool:
        """Tell whether there is a reader, which has yet to end."""
        return self._reader is not None and self._reader.is_alive()

    def start(self) -> None:
        """Connect, and stay connected, in the background. Under the lock; a second call does nothing.

        Raises:
            ServerUnavailableError: no thread can be started; it may be called again.
        """
        if self._reader is None and not self._is_closed:
            reader = threading.Thread(target=self._run, name="policy-client-reader", daemon=True)
            try:
                reader.start()
            except RuntimeError as error:
                raise ServerUnavailableError(f"{self.target}: expected a thread for the connection, received none: {error}") from error
            self._reader = reader

    def send(self, call: Call, rows: OutgoingRows) -> None:
        """Queue rows whose answers a call waits for, in pieces that fit into a message. Under the lock."""
        session = cast(NegotiatedSession, self.session)
        for part in call.add(rows.split(session.max_rows, session.max_bytes, session.row_bytes), self):
            self.send_one(part)

    def send_one(self, part: CallPart) -> None:
        """Queue a part that fits into a message, as a single row does. Under the lock."""
        if not self._queue:
            self._asked_s = time.monotonic()
        self._queue.append(part)
        self.wake_sender()

    def wake_sender(self) -> None:
        """Wake the sender if there is something for it to do. Under the lock."""
        stream = self._stream
        if self._may_send(stream) and not (
            self._looks_again and self._shared.wake_up_queue.is_busy and len(self._queue) < self._others(stream)
        ):
            self._sendable.notify()

    def reset_identity(self) -> None:
        """Give up what waits, and come back as another client, so that a server that was only away ends the episodes. Under the lock."""
        self._client_id = uuid.uuid4().hex
        self._give_up_all()

    def release(self) -> None:
        """Take note that an episode is here no more. Under the lock."""
        self.episodes_open -= 1
        if not (self.is_listed or self.episodes_open):
            self._listener.on_vacant(self)

    def shut(self) -> None:
        """Stop sending and receiving; waiting callers go on without an answer. Under the lock. The reader ends by itself."""
        if not self._is_closed:
            self._is_closed = True
            self._give_up_all()
            self._stream.is_open, self._stream.has_ended = False, True
            self._sendable.notify_all()
            self._changed.notify_all()
            self.abandon()

    def abandon(self) -> None:
        """Wake the reader, because no reference to the client is left (`Shared.is_abandoned`). Takes no lock."""
        if (call := self._stream.call) is not None:
            call.cancel()

    @property
    def rows_waiting(self) -> int:
        """Rows that are not sent. Under the lock."""
        return sum(len(part.rows) for part in self._queue)

    def cancel_queued(self, call: Call) -> None:
        """Drop the parts of a call that were not sent yet. Under the lock."""
        self._queue = deque(part for part in self._queue if part.call is not call)

    def timeout(self, timeout_s: float) -> PolicyServerError:
        """Make the error of a call whose time is over. Under the lock."""
        if self._stream.is_open:
            return ActionTimeoutError(f"expected an answer from {self.target} within {timeout_s:g} s, received none; the episode goes on")
        return self.unavailable(timeout_s)

    def unavailable(self, timeout_s: float) -> ServerUnavailableError:
        """Make the error of a wait for a connection that did not come. Under the lock."""
        reason = f"; the last attempt: {self.trouble}" if self.trouble else ""
        return ServerUnavailableError(f"expected a connection to {self.target} within {timeout_s:g} s, received none{reason}")

    def close(self) -> None:
        """End the stream, join the reader. Idempotent. Not by a reader."""
        with self._lock:
            self.shut()
        if self._reader is not None:
            self._reader.join(_JOIN_TIMEOUT_S)
        self.channel.close()

    def _run(self) -> None:
        """Keep a stream open until the client is closed or abandoned: the reader's thread."""
        try:
            self._stay_connected()
        finally:
            with self._lock:
                self.shut()
            self.channel.close()

    def _stay_connected(self) -> None:
        pause = self._config.reconnect_backoff_initial_s
        self._shared.core.bind()  # and with it the threads that gRPC starts from here, the sender's among them
        while True:
            stream = Stream()
            with self._lock:
                if self._has_ended():
                    return
                self._stream = stream
            trouble = self._converse(stream)
            with self._lock:
                if self._has_ended():
                    return
                was_open = stream.is_open
                self.failures += not was_open
                self._hang_up(stream, trouble)
                if was_open:
                    pause = self._config.reconnect_backoff_initial_s
                elif self.refusal is None:
                    self._listener.on_absence(self)
            level = logging.INFO if pause == self._config.reconnect_backoff_initial_s else logging.DEBUG  # once each time that it breaks
            _log.log(level, "%s: no connection: %s; next attempt in %.2g s", self.target, trouble, pause)
            with self._lock:
                self._changed.wait_for(self._has_ended, pause * random.uniform(0.8, 1.0))
            pause = min(2 * pause, self._config.reconnect_backoff_max_s)

    def _has_ended(self) -> bool:
        return self._is_closed or self._shared.is_abandoned

    def _converse(self, stream: Stream) -> PolicyServerError:
        """Shake hands and read replies for as long as the stream lasts. Returns why it ended."""
        try:
            self._read(stream)
        except Exception as error:
            trouble = trouble_of(error, self.target, self._config.tls_ca_file, was_open=stream.is_open)
            forget(error)
            return trouble
        return ServerUnavailableError("the server ended the stream")

    def _read(self, stream: Stream) -> None:
        responses = self.channel.step(self._requests(stream))
        try:
            with self._lock:
                stream.call = responses
                if self._has_ended():
                    responses.cancel()
            for response in responses:
                if stream.is_open:
                    self._receive(stream, response)
                elif not stream.has_ended:  # else the handshake came after the client was closed
                    session = agree(response, *self._spaces, self._config)
                    self._listener.check_handshake(self, session)
                    self._open(stream, session)
        finally:
            responses.cancel()
            stream.call = None
            del responses  # the last name, which other frames may keep alive: see `common.streaming_calls`

    def _requests(self, stream: Stream) -> Iterator[pb.StepRequest]:
        """Make the messages of a stream: the sender's thread."""
        yield handshake(self._client_id, *self._spaces, self._shared.client_number, self._config.records_in)
        while True:
            with self._lock:
                self._wait_for_something_to_send(stream)
                if stream.has_ended:
                    return
                message_id, rows, session = self._take(stream)
            yield step_batch(message_id, rows, session, waits=self._config.waits_for_learner)

    def _wait_for_something_to_send(self, stream: Stream) -> None:
        """Sleep until there is a message's worth: wait for a crowd while it moves, and wake all of it when it does not."""
        wake_up_queue = self._shared.wake_up_queue
        while not stream.has_ended:
            wake_up_queue.wake_all_if_late()
            is_moving = wake_up_queue.is_moving
            if self._may_send(stream) and not (is_moving and self._is_worth_waiting(stream)):
                return
            self._looks_again = is_moving
            self._sendable.wait(WAKE_UP_MAX_S if is_moving else None)
            self._looks_again = False

    def _may_send(self, stream: Stream) -> bool:
        return bool(self._queue) and stream.is_open and len(stream.in_flight) < self._config.messages_in_flight

    def _is_worth_waiting(self, stream: Stream) -> bool:
        """Tell whether fewer callers have asked than are about to, and none has waited for long."""
        return len(self._queue) < self._others(stream) and time.monotonic() - self._asked_s < HOLD_BACK_MAX_S

    def _others(self, stream: Stream) -> int:
        return self.callers_waking + sum(map(len, stream.in_flight.values()))

    def _take(self, stream: Stream) -> tuple[int, list[OutgoingRows], NegotiatedSession]:
        """Take from the queue what fits into one message."""
        session = cast(NegotiatedSession, self.session)
        parts: list[CallPart] = []
        rows = size = 0
        while self._queue:
            part = self._queue[0]
            rows, size = rows + len(part.rows.episodes), size + part.rows.size_bytes(session.row_bytes)
            if parts and (rows > session.max_rows or size > session.max_bytes):
                break
            parts.append(self._queue.popleft())
            self._shared.rows_sent += len(part.rows.episodes)
        self._messages_taken += 1
        self._shared.messages_sent += 1
        stream.in_flight[self._messages_taken] = parts
        return self._messages_taken, [part.rows for part in parts], session

    def _open(self, stream: Stream, session: NegotiatedSession) -> None:
        """Let rows go out; if another process serves now, callers that wait for the old one look at their rows first."""
        with self._lock:
            if self._is_closed:
                return
            before, self.session, self.stale_at_s = self.session, session, time.monotonic() * session.info.stale
            self._spaces = session.info.observation_space, session.info.action_space
            if before is None or before.info.boot_id != session.info.boot_id:
                self.epoch, self.retires = self.epoch + 1, False
                self._shared.weights_seq_no = session.info.weights_seq_no
                self._listener.on_reboot(self)
                if self._is_closed:  # nothing is left here, and the runner is listed no more
                    return
                self._give_up_all()
            self.trouble = self.refusal = None
            self._shared.connections += 1
            stream.is_open = True
            self._sendable.notify_all()
            self._changed.notify_all()
        _log.info("%s: connected to boot %s, policy version %d", self.target, session.info.boot_id, session.info.weights_seq_no)

    def _receive(self, stream: Stream, response: pb.StepResponse) -> None:
        """Hand the answers of one message to the callers that wait for them."""
        if response.HasField("room"):
            with self._lock:
                self.rooms += 1
                self._changed.notify_all()
            return
        if response.HasField("endpoints"):
            self._listener.on_endpoints(self, response.endpoints.addresses, to_loads(response.endpoints.loads))
            return
        message = response.batch
        with self._lock:
            parts = stream.in_flight.get(message.message_id)
        if parts is None:
            raise WireError(f"message_id: expected one that is unanswered, received {message.message_id}", field="message_id")
        rows = sum([len(part.rows.episodes) for part in parts])
        reply = to_reply(message, rows, cast(NegotiatedSession, self.session))
        with self._lock:
            if stream.has_ended:  # the callers know already that the client was closed
                return
            self._shared.note_answer(rows, reply)
            self.stale_at_s, first = time.monotonic() * reply.is_stale, 0
            for part in parts:
                part.reply, part.first, part.epoch, part.rooms = reply, first, self.epoch, self.rooms
                first += len(part.rows.episodes)
                self._settle(part)
            del stream.in_flight[message.message_id]
            if len(self._shared.wake_up_queue) and not self._looks_again:
                self._sendable.notify()  # so that it looks after the queue
            else:
                self.wake_sender()

    def _hang_up(self, stream: Stream, trouble: PolicyServerError) -> None:
        """Put the unanswered rows that callers still wait for back to the front of the queue. Under the lock."""
        unanswered = [part for parts in stream.in_flight.values() for part in parts if part.call.is_waiting and part.reply is None]
        self._queue.extendleft(reversed(unanswered))
        stream.in_flight.clear()
        stream.is_open, stream.has_ended = False, True
        self.trouble = trouble
        self.refusal = refusal_of(trouble, self.refusal)
        if self.refusal is not None:
            self._give_up_all()
        self._sendable.notify_all()
        self._changed.notify_all()

    def _give_up_all(self) -> None:
        """Let all callers that wait for an answer from here go on without one. Under the lock."""
        parts = [*self._queue, *(part for parts in self._stream.in_flight.values() for part in parts)]
        self._queue.clear()
        for part in parts:
            self._settle(part)

    def _settle(self, part: CallPart) -> None:
        if part.settle():
            self._shared.wake_up_queue.enqueue(part.call)
