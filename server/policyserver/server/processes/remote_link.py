"""The daemon's end of the link to serving actors on other machines: a gRPC service over mutual TLS, and no pickle.

Each actor is served by two threads: one of gRPC's sends what waits for it, one of ours reads. What waits is bounded: an actor for which
more waits is cut off, and finds what stands when it connects again.
"""

from __future__ import annotations

import concurrent.futures
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from policyserver.common.errors import WireError
from policyserver.server.processes.admitted_processes import AdmittedProcesses
from policyserver.server.processes.link import ACTORS, ASK, DRAIN, ENDPOINTS, STATE
from policyserver.server.processes.link_secret import ACTOR, DAEMON, ActorSecret, make_identity, server_credentials
from policyserver.server.processes.link_values import from_value, to_value
from policyserver.v1 import driver_link_pb2 as pb
from policyserver.v1 import driver_link_pb2_grpc as service

logger = logging.getLogger(__name__)

BEAT_S = 1.0
_MOST_WAITING = 1000
_MOST_ACTORS = 1000
_MOST_MESSAGE_BYTES = 2**31 - 1
OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MOST_MESSAGE_BYTES),
]


class _Actor:
    """One actor that is connected."""

    def __init__(self, hello: pb.Hello, context: grpc.ServicerContext) -> None:
        self.index, self.host, self.boot_id = int(hello.index), str(hello.host), str(hello.boot_id)
        self.heard_s = time.monotonic()
        self._context = context
        self.waiting: queue.SimpleQueue[pb.DriverMessage | None] = queue.SimpleQueue()

    def send(self, message: pb.DriverMessage) -> bool:
        """Send a message; False if the actor takes none any more."""
        if self.waiting.qsize() >= _MOST_WAITING:
            self.cut()
            return False
        self.waiting.put(message)
        return True

    def cut(self) -> None:
        """End its stream."""
        self.waiting.put(None)
        self._context.cancel()  # type: ignore[no-untyped-call]


class RemoteLink(service.DriverLinkServicer):
    """A `Link` whose actors may be on other machines."""

    def __init__(
        self,
        host: str,
        version: str,
        *,
        silent_s: float = 5.0,
        on_silent: Callable[[int], None] = lambda index: None,
        on_heard: Callable[[int], None] = lambda index: None,
        is_given_up: Callable[[str], bool] = lambda node_id: False,
    ) -> None:
        """Listen on an address of this machine, on a port that the system chooses.

        Args:
            host: The address that the actors' machines can reach.
            version: Of this package; an actor of another one is refused.
            silent_s: Time without a sign of life after which an actor is silent.
            on_silent: Called with RLlib's index of an actor that is silent or whose stream ended, on a thread of the link.
            on_heard: Called with the index of an actor that is heard of after it was silent.
            is_given_up: Called with Ray's id of the node of an actor that is back after it was silent: whether Ray has given it up, and so
                ends its processes.

        Raises:
            NoCertificateError: The command openssl is missing or fails.
            OSError: The address can't be bound.
        """
        self._version, self._silent_s = version, silent_s
        self._on_silent, self._on_heard = on_silent, on_heard
        self._admitted = AdmittedProcesses(is_given_up)
        self._lock = threading.RLock()  # a signal may drain in the middle of an `offer` of the same thread
        self._changed = threading.Condition(self._lock)
        self._standing: dict[str, pb.DriverMessage] = {}
        self._actors: dict[int, _Actor] = {}
        self._silent: set[int] = set()
        self._refused: dict[int, str] = {}
        """Why, by actor, as it was logged."""
        self._told: set[int] = set()
        """The actors that the daemon was told to be silent."""
        self._telling = threading.Lock()  # taken before the other lock, and by no signal handler
        self._addresses: dict[int, dict[str, int]] = {}
        """Where clients reach each actor, with the episodes that are open there. What one said stays until a successor says otherwise: all
        actors have to list the same addresses, and one that is away comes back."""
        self._most_listed = _MOST_ACTORS
        """Actors beyond this number are built, and clients are not told of them yet."""
        self._loads_are_new = False
        self._released: set[int] = set()
        """Actors that are about to end for good."""
        self._questions = 0
        self._answers: dict[int, Any] = {}
        """To the question that is asked now, by actor."""
        self._late: dict[str, list[Any]] = {}
        self._asking = threading.Lock()
        self._closed = threading.Event()
        daemon, actor = make_identity(DAEMON), make_identity(ACTOR)
        self.secret = ActorSecret(actor, daemon.certificate)
        pool = concurrent.futures.ThreadPoolExecutor(_MOST_ACTORS, thread_name_prefix="driver-link")
        self._server = grpc.server(pool, options=[("grpc.so_reuseport", 0), *OPTIONS], maximum_concurrent_rpcs=_MOST_ACTORS)
        service.add_DriverLinkServicer_to_server(self, self._server)
        target = f"[{host}]" if ":" in host else host
        try:
            port = self._server.add_secure_port(f"{target}:0", server_credentials(daemon, actor.certificate))
        except RuntimeError as error:
            raise OSError(f"the link to serving actors can't listen on {host}: {error}") from error
        self.address = f"{target}:{port}"
        self._server.start()
        self._watch = threading.Thread(target=self._beat, name="driver-link-beat", daemon=True)
        self._watch.start()

    # The daemon's side -----------------------------------------------------------------------------------------------------------------

    def drain(self, *, is_final: bool = False) -> None:
        """See `Link.drain`."""
        self.order(DRAIN, is_final, stays=True)

    def order(self, kind: str, content: Any = None, *, stays: bool = False) -> None:
        """See `Link.order`."""
        message = pb.DriverMessage(order=pb.Order(kind=kind, content=to_value(content)))
        with self._lock:
            if stays:
                self._standing[kind] = message
            for actor in self._actors.values():
                actor.send(message)
            if kind == ACTORS:
                self._most_listed = content
                self._order_endpoints()

    def offer(self, state: dict[str, Any]) -> None:
        """See `Link.offer`."""
        self.keep(STATE, state)

    def keep(self, kind: str, content: Any) -> None:
        """See `Link.keep`."""
        message = pb.DriverMessage(order=pb.Order(kind=kind, content=to_value(content)))
        with self._lock:
            self._standing[kind] = message
            if kind == ACTORS:
                self._most_listed = content

    def ask(
        self, timeout_s: float, on_late: Callable[[Any], None] = lambda answer: None, *, kind: str = ASK, content: Any = None
    ) -> list[Any]:
        """See `Link.ask`; of actors that are silent no answer is waited for."""
        with self._asking:
            answers = self._ask(timeout_s, kind, content)
            with self._lock:
                late = self._late.pop(kind, ())
        for answer in late:
            on_late(answer)
        return answers

    def _ask(self, timeout_s: float, kind: str, content: Any) -> list[Any]:
        sent = to_value(content)
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._questions += 1
            self._answers = {}
            message = pb.DriverMessage(question=pb.Question(number=self._questions, kind=kind, content=sent))
            asked = {index: actor for index, actor in self._actors.items() if actor.send(message)}

            def missing() -> bool:
                there = (index for index, actor in asked.items() if self._actors.get(index) is actor and index not in self._silent)
                return any(index not in self._answers for index in there)

            while not self._closed.is_set() and missing() and (left_s := deadline - time.monotonic()) > 0:
                self._changed.wait(left_s)
            return [self._answers[index] for index in sorted(asked) if index in self._answers]

    def release(self, index: int) -> None:
        """See `Link.release`."""
        with self._lock:
            if index in self._actors:
                self._released.add(index)
            self._admitted.release(index)  # one that is cut off now may come back
            self._silent.discard(index)
            if self._addresses.pop(index, None) is not None:
                self._order_endpoints()
        self._tell(index)

    def connected(self) -> list[int]:
        """Return RLlib's indices of the actors that are connected and not silent."""
        with self._lock:
            return sorted(self._actors.keys() - self._silent)

    def close(self) -> None:
        """See `Link.close`."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
            for actor in self._actors.values():
                actor.waiting.put(None)
        self._watch.join()
        self._server.stop(0.5).wait()

    # The actors' side ------------------------------------------------------------------------------------------------------------------

    def Follow(self, request_iterator: Iterator[pb.ActorMessage], context: grpc.ServicerContext) -> Iterator[pb.DriverMessage]:
        """Serve one actor until either end ends."""
        first = next(request_iterator, None)
        if first is None or not first.HasField("hello"):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a Hello first")
            return
        if first.hello.version != self._version:
            self._refuse(first.hello, context)
            return
        actor = _Actor(first.hello, context)
        with self._lock:
            is_back = actor.index in self._silent
        if not self._admitted.admit(actor.index, actor.boot_id, first.hello.node_id, is_back=is_back):
            text = f"serving actor {actor.index}: this process was given up, for a successor or for good: it ends"
            logger.warning("%s (on %s)", text, actor.host)
            context.abort(grpc.StatusCode.ABORTED, text)
        with self._lock:
            self._refused.pop(actor.index, None)
            self._released.discard(actor.index)
            if (before := self._actors.get(actor.index)) is not None:
                before.cut()
            self._actors[actor.index] = actor
            for kind in sorted(self._standing, key=lambda kind: kind == STATE):  # with its state an actor begins to listen
                actor.send(self._standing[kind])
        self._heard(actor)
        reader = threading.Thread(target=self._read, args=(actor, request_iterator), name=f"driver-link-{actor.index}", daemon=True)
        reader.start()
        try:
            while (message := actor.waiting.get()) is not None:
                yield message
        finally:
            self._forget(actor)

    def _refuse(self, hello: pb.Hello, context: grpc.ServicerContext) -> None:
        """Refuse an actor of another version, which asks again each second: it is logged once."""
        text = (
            f"serving actor {hello.index} on {hello.host} has rllib-policy-server {hello.version}, expected {self._version} as the daemon "
            "has; install that one there"
        )
        with self._lock:
            is_new = self._refused.get(hello.index) != text and len(self._refused) < _MOST_ACTORS
            if is_new:
                self._refused[hello.index] = text
        if is_new:
            logger.error("%s", text)
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)

    def _read(self, actor: _Actor, messages: Iterator[pb.ActorMessage]) -> None:
        try:
            for message in messages:
                actor.heard_s = time.monotonic()
                self._heard(actor)
                if message.HasField("answer"):
                    self._take(actor, message.answer)
                elif message.HasField("beat"):
                    self._tell_endpoints(actor, message.beat)
        except grpc.RpcError as error:
            logger.debug("the stream of serving actor %d ended: %s", actor.index, error)
        except Exception as error:  # of grpc's own, where the stream is cancelled
            logger.debug("the stream of serving actor %d broke: %r", actor.index, error)
        actor.waiting.put(None)

    def _take(self, actor: _Actor, answer: pb.Answer) -> None:
        try:
            content = from_value(answer.content)
        except WireError as error:
            logger.error("serving actor %d answered what can't be read: %s", actor.index, error)
            return
        with self._changed:
            if answer.number == self._questions:
                self._answers[actor.index] = content
                self._changed.notify_all()
            else:
                self._late.setdefault(answer.kind, []).append(content)

    def _tell_endpoints(self, actor: _Actor, beat: pb.Beat) -> None:
        addresses = dict.fromkeys(beat.addresses, int(beat.episodes_open))
        with self._lock:
            if self._actors.get(actor.index) is not actor or actor.index in self._released:
                return  # it has ended, or is about to: what is told of it now would stay
            before = self._addresses.get(actor.index)
            if not addresses or addresses == before:
                return
            self._addresses[actor.index] = addresses
            if before is not None and before.keys() == addresses.keys():
                self._loads_are_new = True  # which are told with the next sign of life, those of all actors together
            else:
                self._order_endpoints()

    def _order_endpoints(self) -> None:
        self._loads_are_new = False
        expected = {index for index in self._actors if index <= self._most_listed} - self._released
        if expected <= self._addresses.keys():  # else the others begin to listen, too
            groups = [group for index, group in sorted(self._addresses.items()) if index <= self._most_listed]
            self.order(ENDPOINTS, {address: load for group in groups for address, load in group.items()}, stays=True)

    def _heard(self, actor: _Actor) -> None:
        with self._lock:
            if self._actors.get(actor.index) is not actor or actor.index not in self._silent:
                return
            self._silent.discard(actor.index)
        self._tell(actor.index)
        logger.info("serving actor %d on %s is heard of again", actor.index, actor.host)

    def _forget(self, actor: _Actor) -> None:
        with self._changed:
            if self._actors.get(actor.index) is not actor:
                return
            del self._actors[actor.index]
            if actor.index in self._released:
                self._released.discard(actor.index)
                self._changed.notify_all()
                return
            was_silent = actor.index in self._silent
            self._silent.add(actor.index)
            self._changed.notify_all()
        if not was_silent and not self._closed.is_set():
            self._tell(actor.index)
            level = logging.DEBUG if DRAIN in self._standing else logging.WARNING
            logger.log(level, "the link to serving actor %d on %s ended: it is left out until it is heard of", actor.index, actor.host)

    def _tell(self, index: int) -> None:
        """Tell how an actor is now, which other threads may have changed since: what is told last is so."""
        with self._telling:
            with self._lock:
                is_silent = index in self._silent
            if is_silent == (index in self._told):
                return
            (self._told.add if is_silent else self._told.discard)(index)
            try:
                (self._on_silent if is_silent else self._on_heard)(index)
            except Exception:  # of which the link does not end
                logger.exception("serving actor %d: the daemon could not note that it is %s", index, "silent" if is_silent else "heard")

    def _beat(self) -> None:
        """Send signs of life, and notice on time who sends none."""
        beat, next_s = pb.DriverMessage(beat=pb.Beat()), time.monotonic() + BEAT_S
        while not self._closed.wait(min(next_s, self._next_silence_s()) - time.monotonic()):
            now_s = time.monotonic()
            silent = []
            with self._changed:
                if self._loads_are_new:
                    self._order_endpoints()
                for index, actor in self._actors.items():
                    if now_s >= next_s:
                        actor.send(beat)
                    if now_s >= actor.heard_s + self._silent_s and index not in self._silent | self._released:
                        self._silent.add(index)
                        silent.append(actor)
                if silent:
                    self._changed.notify_all()
            if now_s >= next_s:
                next_s = now_s + BEAT_S
            for actor in silent:
                actor.cut()  # what it sent before would come after a heal, and its process may be given up by then: it comes anew
                self._tell(actor.index)
                text = "serving actor %d on %s is silent for %.0f s: it is left out until it is heard of"
                logger.warning(text, actor.index, actor.host, self._silent_s)

    def _next_silence_s(self) -> float:
        """Return when the next actor is silent unless it is heard of, by `time.monotonic`."""
        with self._lock:
            heard_s = [actor.heard_s for index, actor in self._actors.items() if index not in self._silent | self._released]
        return min(heard_s, default=math.inf) + self._silent_s
