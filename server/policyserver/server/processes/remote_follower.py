"""A serving actor's end of the link to a daemon on another machine.

A daemon that is silent is not gone: the network may be cut. So the actor goes on, and tries to connect again. A machine that answers that
no process listens says that the daemon is gone.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from policyserver.common.channels import open_channel
from policyserver.common.errors import WireError
from policyserver.common.streaming_calls import StreamChannel, forget
from policyserver.server.config.link_address import RemoteAddress
from policyserver.server.processes.link import Followed
from policyserver.server.processes.link_secret import DAEMON, ActorSecret
from policyserver.server.processes.link_values import from_value, to_value
from policyserver.server.processes.remote_link import BEAT_S, OPTIONS
from policyserver.v1 import driver_link_pb2 as pb
from policyserver.v1 import driver_link_pb2_grpc as service

logger = logging.getLogger(__name__)

_CONNECT_S = 2.0
_OPTIONS: list[tuple[str, int | str]] = [
    *OPTIONS,
    ("grpc.ssl_target_name_override", DAEMON),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
]


class RemoteFollower:
    """Follow a daemon on another machine until it is gone or `stop` is called."""

    def __init__(
        self,
        where: RemoteAddress,
        secret: ActorSecret,
        hello: pb.Hello,
        followed: Followed,
        *,
        signs: Callable[[], pb.Beat] = pb.Beat,
        on_silent: Callable[[], None] = lambda: None,
        on_grace_over: Callable[[], None] = lambda: None,
        on_heard: Callable[[], None] = lambda: None,
    ) -> None:
        """Start to follow; returns at once.

        Args:
            where: The daemon's end.
            secret: What lets this actor in.
            hello: Who this actor is.
            followed: What it does with what it is told.
            signs: Makes its signs of life.
            on_silent: Called when the daemon has been silent for `where.silent_s`.
            on_grace_over: Called when it has been silent for `where.grace_s` more.
            on_heard: Called when it is heard of after it was silent.
        """
        self._where, self._secret, self._hello, self._followed = where, secret, hello, followed
        self._signs, self._on_silent, self._on_grace_over, self._on_heard = signs, on_silent, on_grace_over, on_heard
        self._stopped = threading.Event()
        self._heard_s = self._tried_s = time.monotonic()
        self._is_silent = self._is_over = False
        self._noting = threading.Lock()
        """Held from a change of what the two lines above say until it is told: two threads change it."""
        self._refusal = ""
        self._call: grpc.Call | None = None
        self._outgoing: queue.SimpleQueue[pb.ActorMessage | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._follow, name="follow-driver", daemon=True),
            threading.Thread(target=self._beat, name="follow-driver-beat", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the following. A second call does nothing."""
        self._stopped.set()
        self._hang_up()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _hang_up(self) -> None:
        self._outgoing.put(None)
        if (call := self._call) is not None:
            call.cancel()  # type: ignore[no-untyped-call]

    def _follow(self) -> None:
        pause_s = 0.0
        while not self._stopped.is_set():
            is_there = self._is_there()  # first: gRPC would wait for 20 s for a machine that is cut off, and go on with that after the heal
            is_gone = is_there is False
            if not is_gone:
                self._stopped.wait(pause_s if is_there else BEAT_S)
                pause_s = BEAT_S
                is_gone = bool(is_there) and self._follow_once()
            if is_gone and not self._stopped.is_set():
                self._followed.on_driver_gone()
                return

    def _follow_once(self) -> bool:
        """Connect and obey until the stream ends; return whether another process has this one's place."""
        self._tried_s = time.monotonic()
        outgoing = self._outgoing = queue.SimpleQueue()
        outgoing.put(pb.ActorMessage(hello=self._hello))
        with StreamChannel(open_channel(self._where.address, _OPTIONS, self._secret.credentials())) as streams:
            try:
                call = self._call = streams.begin(service.DriverLinkStub(streams.channel).Follow, _messages(outgoing))
            except RuntimeError as error:
                logger.warning("no thread for the link to the daemon at %s, which is tried again: %s", self._where.address, error)
                return False
            try:
                if self._stopped.is_set():
                    call.cancel()
                for message in call:
                    self._note_heard()
                    self._obey(message, outgoing)
            except grpc.RpcError as error:
                self._note_end(error)
                forget(error)
                return bool(error.code() == grpc.StatusCode.ABORTED)
            finally:
                self._call = None
                outgoing.put(None)
        return False

    def _note_end(self, error: grpc.RpcError) -> None:
        """Log why the stream ended: a refusal once, for the daemon is asked again each second."""
        refusal = str(error.details()) if error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED) else ""
        if refusal and refusal != self._refusal:
            logger.error("the daemon at %s lets this actor not in: %s", self._where.address, refusal)
        elif not refusal:
            logger.debug("the link to the daemon at %s ended: %s", self._where.address, error)
        self._refusal = refusal or self._refusal

    def _obey(self, message: pb.DriverMessage, outgoing: queue.SimpleQueue[pb.ActorMessage | None]) -> None:
        try:
            if message.HasField("order"):
                self._followed.obey(message.order.kind, from_value(message.order.content))
            elif message.HasField("question") and self._followed.answers(message.question.kind):
                asked = message.question
                content = to_value(self._followed.answer(asked.kind, from_value(asked.content)))
                outgoing.put(pb.ActorMessage(answer=pb.Answer(number=asked.number, kind=asked.kind, content=content)))
        except WireError:
            logger.exception("the daemon sent what can't be read")
        except Exception:  # e.g. the port is still taken; what fails here is no reason to think that the daemon is gone
            logger.exception("what the daemon sent could not be followed; RLlib brings weights and the order to listen again")

    def _is_there(self) -> bool | None:
        """Tell whether the daemon's machine has a process at its port; None if it says nothing. Without one the daemon is gone."""
        host, _, port = self._where.address.rpartition(":")
        with contextlib.suppress(OSError):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
            except ConnectionRefusedError:
                return False
            return True
        return None

    def _note_heard(self) -> None:
        self._heard_s = time.monotonic()
        with self._noting:
            if self._is_silent:
                self._is_silent = self._is_over = False
                logger.info("the daemon at %s is heard of again", self._where.address)
                _call(self._on_heard)

    def _beat(self) -> None:
        """Send signs of life, and notice when none come."""
        while not self._stopped.wait(BEAT_S):
            if self._call is not None:
                _call(lambda: self._outgoing.put(pb.ActorMessage(beat=self._signs())))
            with self._noting:
                silent_s = time.monotonic() - self._heard_s
                if silent_s > self._where.silent_s and not self._is_silent:
                    self._is_silent = True
                    logger.warning(
                        "the daemon at %s is silent for %.0f s: serving goes on with what is there", self._where.address, silent_s
                    )
                    _call(self._on_silent)
                if silent_s > self._where.silent_s + self._where.grace_s and not self._is_over:
                    self._is_over = True
                    _call(self._on_grace_over)
            if self._call is not None and time.monotonic() - max(self._heard_s, self._tried_s) > self._where.silent_s:
                self._hang_up()


def _call(function: Callable[[], None]) -> None:
    """Call what another component gave; what fails there does not end the thread, without which the daemon hears of this actor no more."""
    try:
        function()
    except Exception:
        logger.exception("a sign of life or the daemon's silence could not be dealt with")


def _messages(outgoing: queue.SimpleQueue[pb.ActorMessage | None]) -> Iterator[pb.ActorMessage]:
    while (message := outgoing.get()) is not None:
        yield message
