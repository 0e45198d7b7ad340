"""A line from the daemon (Ray's driver) to its serving actors on the same machine that Ray does not provide.

Some things must reach a serving actor at once, although its only Ray thread may be waiting in `sample()` and the daemon's may be busy
with an update:
- that the daemon is draining, and whether that is its end for good;
- that the daemon is gone: an actor whose daemon was killed would hold the port for some seconds more, and the successor could not have it;
- the newest weights, when the actor was restarted: RLlib brings them after the update only, and until then the actor serves no client;
- what the admin service orders, such as further policies;
- the question how serving goes, which is the one that is answered.

The link is a unix socket in a folder that only this user can enter. The daemon listens; each actor connects, and a thread of the actor
waits for messages: a pickled pair of a kind and a content each. The end of the stream means that the daemon's process ended, for the
kernel closes its sockets however it died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from policyserver.server.processes.link import ASK, DRAIN, STATE, Followed
from policyserver.server.processes.linked_actor import STUCK_S, LinkedActor

logger = logging.getLogger(__name__)

_REST_S = 1.0  # before actors are accepted again where the system refused that


class DriverLink:
    """The daemon's end. Each actor has two threads, see `linked_actor`: an actor that does not read holds up no other."""

    def __init__(self, path: Path, *, stuck_s: float = STUCK_S) -> None:
        """Listen on a unix socket; its folder should be closed to other users.

        Args:
            path: The socket.
            stuck_s: How long an actor may take nothing of what waits for it; then its process is ended, so that Ray starts another.
        """
        self.path = path
        self._stuck_s = stuck_s
        self._lock = threading.RLock()  # a signal may drain in the middle of an `offer` of the same thread
        self._changed = threading.Condition(self._lock)
        self._standing: dict[str, bytes] = {}
        """The messages for actors that connect later, by kind."""
        self._actors: list[LinkedActor] = []
        self._questions = 0
        self._asked: int | None = None
        """Number of the question that is asked now."""
        self._answers: dict[LinkedActor, Any] = {}
        """Those to it."""
        self._late: dict[str, list[Any]] = {}
        """Answers that came after their question was given up, by its kind, for the next question of that kind."""
        self._closed = threading.Event()
        self._asking = threading.Lock()  # one question at a time; taken before the other lock
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, name="driver-link", daemon=True)
        self._thread.start()

    def drain(self, *, is_final: bool = False) -> None:
        """Tell all actors, those that connect later too, to finish what they have and start nothing new.

        If it `is_final`, the server does not come back by itself, which the actors tell their callers.
        """
        self.order(DRAIN, is_final, stays=True)

    def order(self, kind: str, content: Any = None, *, stays: bool = False) -> None:
        """Tell all actors something, and if it `stays`, those that connect later, too. Returns before it is sent."""
        message = pickle.dumps((kind, content), pickle.HIGHEST_PROTOCOL)
        with self._lock:
            if stays:
                self._standing[kind] = message
            for actor in self._actors:
                actor.send(message)

    def offer(self, state: dict[str, Any]) -> None:
        """Keep an env runner's state, weights included, for actors that connect from now on."""
        self.keep(STATE, state)

    def keep(self, kind: str, content: Any) -> None:
        """Keep an order for actors that connect from now on; those that are there are not told."""
        message = pickle.dumps((kind, content), pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._standing[kind] = message

    def ask(
        self, timeout_s: float, on_late: Callable[[Any], None] = lambda answer: None, *, kind: str = ASK, content: Any = None
    ) -> list[Any]:
        """Ask all actors something; by default how serving goes.

        Args:
            timeout_s: Longest wait for the answers.
            on_late: Called with each answer to an earlier question of that kind that came too late for it.
            kind: What is asked.
            content: What comes with the question.

        Returns:
            What those say that answer in time, in the order in which they connected.
        """
        with self._asking:
            answers = self._ask(timeout_s, kind, content)
            with self._lock:
                late = self._late.pop(kind, ())
        for answer in late:
            on_late(answer)
        return answers

    def _ask(self, timeout_s: float, kind: str, content: Any) -> list[Any]:
        self._questions += 1
        question = pickle.dumps((kind, (self._questions, content)), pickle.HIGHEST_PROTOCOL)
        with self._changed:
            self._asked = self._questions
            asked = list(self._actors)
            for actor in asked:
                actor.send(question)

            def all_said() -> bool:  # but for those that died meanwhile
                return all(actor in self._answers or actor not in self._actors for actor in asked)

            try:
                self._changed.wait_for(all_said, timeout_s)
            finally:
                answers, self._answers, self._asked = self._answers, {}, None
            return [answers[actor] for actor in asked if actor in answers]

    def release(self, index: int) -> None:
        """See `Link.release`; what ends here is noticed by the kernel, and addresses are the actors' own."""

    def close(self) -> None:
        """Cut the link: to the actors this is the daemon's end. A second call does nothing."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self._thread.join()
        with self._lock:
            actors = list(self._actors)
        for actor in actors:
            actor.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        accepted: socket.socket | None = None
        is_refused = False
        while not self._closed.is_set():
            try:
                if accepted is None:
                    accepted, _ = self._listener.accept()
                actor, accepted = LinkedActor(accepted, self._stuck_s, self._take, self._forget), None
                self._begin(actor)
            except (OSError, RuntimeError) as error:  # too many open files or threads, which may pass: an actor that connects then waits
                if not (is_refused or self._closed.is_set()):
                    logger.error("no serving actor can connect to the daemon now, trying again every %g s: %s", _REST_S, error)
                is_refused = True
                self._closed.wait(_REST_S)
                continue
            if is_refused:
                is_refused = False
                logger.warning("serving actors can connect to the daemon again")
        if accepted is not None:
            accepted.close()

    def _begin(self, actor: LinkedActor) -> None:
        with self._lock:
            self._actors.append(actor)
            for kind in sorted(self._standing, key=lambda kind: kind == STATE):  # with its state an actor begins to listen
                actor.send(self._standing[kind])
        try:
            actor.start()
        except RuntimeError:
            self._forget(actor)
            raise

    def _take(self, actor: LinkedActor, message: bytes) -> None:
        """Take what an actor answers."""
        try:
            number, kind, answer = pickle.loads(message)
        except Exception:
            logger.exception("a serving actor answered what can't be read")
            return
        with self._changed:
            if number == self._asked:
                self._answers[actor] = answer
                self._changed.notify_all()
            else:
                self._late.setdefault(kind, []).append(answer)

    def _forget(self, actor: LinkedActor) -> None:
        """Take note that an actor died, or was ended."""
        with self._changed:
            self._actors.remove(actor)
            self._changed.notify_all()


def follow_driver(
    path: Path,
    on_drain: Callable[[bool], None],
    on_driver_gone: Callable[[], None],
    on_state: Callable[[dict[str, Any]], None],
    on_question: Callable[[Any], Any],
    orders: Mapping[str, Callable[[Any], None]] | None = None,
    questions: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Callable[[], None]:
    """Connect an actor to its daemon. All functions are called from the link's own thread.

    Args:
        path: The daemon's socket. If it is absent, nothing is followed: Ray itself ends an actor whose driver is gone, some seconds later.
        on_drain: Called when the daemon starts to drain, with whether that is final.
        on_driver_gone: Called when the daemon's process has ended, however it did.
        on_state: Called with the newest state, if the daemon has offered one.
        on_question: Called when the daemon asks how serving goes, with what comes with the question. What it returns is pickled.
        orders: Called with what `DriverLink.order` tells, by kind; an order of another kind is skipped.
        questions: Called with what else `DriverLink.ask` asks, by kind; what they return is pickled.

    Returns:
        A function that ends the following; idempotent.
    """
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(str(path))
    except OSError as error:
        line.close()
        logger.debug("no daemon to follow at %s: %s", path, error)
        return lambda: None
    stopped = threading.Event()
    connection = Connection(os.dup(line.fileno()))
    followed = Followed(on_drain, on_driver_gone, on_state, on_question, orders or {}, questions or {})

    def obey(kind: str, content: Any) -> None:
        if followed.answers(kind):
            number, asked = content
            connection.send_bytes(pickle.dumps((number, kind, followed.answer(kind, asked))))
        else:
            followed.obey(kind, content)

    def follow() -> None:
        with contextlib.suppress(OSError, EOFError), connection:
            while True:
                message = connection.recv_bytes()
                try:
                    obey(*pickle.loads(message))
                except Exception:  # e.g. the port is still taken; what fails here is no reason to think that the daemon is gone
                    logger.exception("what the daemon sent could not be followed; RLlib brings weights and the order to listen again")
        if not stopped.is_set():
            on_driver_gone()

    thread = threading.Thread(target=follow, name="follow-driver", daemon=True)
    thread.start()

    def stop() -> None:
        stopped.set()
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not thread:
            thread.join()
        line.close()

    return stop


def leave_at_once() -> None:
    """End this process without ceremony: what an actor does when its daemon is gone and the port must be free."""
    os._exit(1)
