"""Several serving runners as one service: a stream to each, and which of them gets the next episode.

In the handshake the runner at the given address lists the other runners, and the client connects to all of them. A new episode goes to the
connected runner that has the fewest open ones of this client, and stays there: only that process has its state. Of equal runners the one
listed first gets it, and the server begins the list for each client with another runner. So a thousand clients with one episode each are
spread as evenly as one client with a thousand, and nothing is left to chance.

A runner that refuses new episodes, for it ends or has not heard of its daemon for too long, gets none for a while: those that it refuses
begin on another one. Where another one learns, a runner whose answers are stale gets none, for nothing is learned from them. A runner that
cannot be reached gets none; the client tries again for as long as it lives. If a connection breaks and its runner cannot be reached while
others can, its episodes are lost at once: a call with episodes on several runners need not wait for the successor of one. If the runner was
only away, it ends them as those of a client that is gone.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import gymnasium as gym

from policyserver.client.config import ClientConfig
from policyserver.client.connection import Connection
from policyserver.client.messages import NegotiatedSession
from policyserver.client.rows import ClientEpisode, Home, OutgoingRows
from policyserver.client.server_info import ServerInfo
from policyserver.client.shared import ProcessorCore, Shared
from policyserver.client.wake_up_queue import Call
from policyserver.common.endpoints import parse_address
from policyserver.common.errors import ClientClosedError, HandshakeError, PolicyServerError, ServerUnavailableError

_log = logging.getLogger(__name__)
_OTHERS_TIMEOUT_S = 2.0  # for the runners beside the first that is connected; a host may swallow packets without an answer
_REST_S = 5.0  # after which a runner that refused to start an episode, or whose answer was stale, may get one again


class Balancer:
    """The connections of one client."""

    def __init__(
        self,
        target: str,
        config: ClientConfig,
        observation_space: gym.Space[Any] | None,
        action_space: gym.Space[Any] | None,
        on_loss: Callable[..., None],
    ) -> None:
        """Prepare the connection to the address that was given; nothing is opened before the first `connect`.

        `on_loss` is `ClientEpisodes.lose`, called under the lock when a runner is gone with its episodes.

        Raises:
            ValueError: plaintext off the machine, or a file that cannot be read.
        """
        self.shared = Shared(ProcessorCore(config.callers_core))
        self.session: NegotiatedSession | None = None
        """The newest handshake with the address that was given; None before the first."""
        self._config = config
        self._on_loss = on_loss
        self._is_closed = False
        self._is_complete = True
        """No caller needs to wait for a runner that is about to connect."""
        self._rests: dict[Connection, float] = {}
        """Runners that refused to start an episode, with when they are asked again, by `time.monotonic`."""
        self._missed: set[str] = set()
        """Runners that the log says are missing."""
        self._given = self._make(target, (observation_space, action_space))
        self._connections: tuple[Connection, ...] = (self._given,)
        """In the order in which equals are chosen; the given one among them. Replaced, never changed."""

    def connect(self, timeout_s: float) -> NegotiatedSession:
        """Wait for a connection to any runner, beginning with the given address at the first call.

        Raises:
            ClientClosedError: the client was closed.
            ServerUnavailableError: none in time.
            HandshakeError: the server speaks another protocol or has other spaces.
            AuthenticationError: the server wants another token.
        """
        shared = self.shared
        with shared.lock:
            if not self._is_closed:
                self._given.start()
            shared.changed.wait_for(lambda: self._is_closed or self._is_open() or self._refusal() is not None, timeout_s)
            self.check()
            if not self._is_open() or self.session is None:
                raise self._given.unavailable(timeout_s)
            if self._is_complete:
                return self.session
            self._wait_for_others(min(timeout_s, _OTHERS_TIMEOUT_S))
            self.check()
            self._is_complete = True
            session, missing = self.session, [connection for connection in self._connections if self._is_newly_missing(connection)]
            self._missed.update(connection.target for connection in missing)
        for connection in missing:
            _log.warning(
                "%s: no new episodes go to this serving runner while it is not connected: %s", connection.target, connection.trouble
            )
        return session

    def check(self) -> None:
        """Raise what makes waiting pointless. Under the lock.

        Raises:
            ClientClosedError: the client was closed.
            HandshakeError: no runner is left that this client can talk to; so is AuthenticationError.
        """
        if self._is_closed:
            raise ClientClosedError("the client was closed; make a new one")
        if self._given.refusal is not None and (refusal := self._refusal()) is not None:
            raise copy.copy(refusal)

    @property
    def rows_waiting(self) -> int:
        """Steps that wait to be sent. Under the lock."""
        return sum(connection.rows_waiting for connection in self._connections)

    def place(self) -> Connection:
        """Choose the runner of a new episode. Under the lock."""
        if len(self._connections) == 1:
            return self._given
        now_s = time.monotonic()
        for connection in [connection for connection, until_s in self._rests.items() if until_s <= now_s]:
            del self._rests[connection]
            connection.retires = False
        known = [connection for connection in self._connections if connection.session is not None]
        return min(known, key=lambda each: (not each.is_open, each.retires, now_s - each.stale_at_s < _REST_S, each.episodes_open))

    def move_start(self, episode: ClientEpisode) -> bool:
        """Give an episode whose start its runner has refused, for that ends, to another one that is connected. Under the lock.

        Returns:
            Whether there is such a runner.
        """
        refusing = cast(Connection, episode.connection)
        refusing.retires = True
        self._rests[refusing] = time.monotonic() + _REST_S
        chosen = self.place()
        if chosen is refusing or chosen.retires or not chosen.is_open:
            return False
        refusing.episodes_open -= 1
        episode.connection = chosen
        chosen.episodes_open += 1
        return True

    def divide(self, rows: OutgoingRows) -> list[OutgoingRows]:
        """Cut rows into those of each runner. Under the lock."""
        if len(self._connections) == 1 or len(rows.episodes) <= 1:
            return [rows] if rows.episodes else []
        found: dict[Home | None, list[int]] = {}
        for row, episode in enumerate(rows.episodes):
            found.setdefault(episode.connection, []).append(row)
        return [rows] if len(found) == 1 else [rows.select(picked) for picked in found.values()]

    def stale_runners(self) -> tuple[str, ...]:
        """Return the targets of connected runners whose newest answer is stale."""
        with self.shared.lock:
            return tuple(connection.target for connection in self._connections if connection.is_open and connection.stale_at_s)

    def wait(self, call: Call, timeout_s: float) -> None:
        """Sleep until all parts are answered, or something happened that the caller must look at, or the time is over.

        Afterwards the calling thread holds the waiter again, and parts without an answer are no longer sent.

        Args:
            call: what was sent. After an interrupt it must be cancelled.
            timeout_s: longest time, seconds.
        """
        self.shared.core.bind()
        if not call.waiter.acquire(timeout=min(max(0.0, timeout_s), threading.TIMEOUT_MAX)):
            with self.shared.lock:
                self.cancel(call)

    def wake_next(self, call: Call) -> None:
        """Let the next answered caller go on; after the last one, send what they ask. By a thread that runs again, under the lock."""
        if self.shared.wake_up_queue.wake_next(call):
            for connection in self._connections:
                connection.wake_sender()

    def cancel(self, call: Call) -> None:
        """Cancel a queued call. By the thread that waited for it, under the lock."""
        if call.is_waiting:
            call.is_waiting = False
            for connection in self._connections:
                connection.cancel_queued(call)
        else:
            self.shared.wake_up_queue.remove(call)
            call.waiter.acquire(blocking=False)  # it may have been released in the last moment

    def pause(self, seconds: float) -> None:
        """Sleep, unless the client is closed meanwhile."""
        with self.shared.lock:
            self.shared.changed.wait_for(lambda: self._is_closed, max(0.0, seconds))

    def wait_for_room(self, held: Mapping[Connection, int], timeout_s: float) -> None:
        """Sleep until a runner that waits for its learner says that there is room again, or its connection breaks.

        Args:
            held: the runners, and how often each had said so before it refused rows.
            timeout_s: longest time, seconds.
        """

        def may_ask() -> bool:
            return self._is_closed or any(connection.rooms > before or not connection.is_open for connection, before in held.items())

        with self.shared.lock:
            self.shared.changed.wait_for(may_ask, max(0.0, timeout_s))

    def ask(self, method: str, request: Any) -> Any:
        """Make a unary call to the given address, or to another runner while only that one is there. Raises as `Connection.ask`."""
        with self.shared.lock:
            self.check()
            open_ones = [connection for connection in self._connections if connection.is_open]
        return (self._given if self._given in open_ones or not open_ones else open_ones[0]).ask(method, request)

    def ask_all(self, method: str, request: Any) -> dict[str, Any]:
        """Make a unary call to all runners that are connected. Returns the answers, by target.

        Raises:
            PolicyServerError: as `connect`, or none of them answered.
        """
        self.connect(self._config.connect_timeout_s)
        with self.shared.lock:
            asked = [connection for connection in self._connections if connection.is_open] or [self._given]
        answers: dict[str, Any] = {}
        for connection in asked:
            try:
                answers[connection.target] = connection.ask(method, request)
            except ServerUnavailableError:
                if connection is asked[-1] and not answers:
                    raise
        return answers

    def check_handshake(self, connection: Connection, session: NegotiatedSession) -> None:
        """Check a handshake: the given address lists the runners of the service, and the others must list the same. A reader's thread.

        Raises:
            HandshakeError: the endpoint belongs to another service.
        """
        if connection is self._given:
            self._learn(session)
        with self.shared.lock:
            if self.shared.client_number is None:
                self.shared.client_number = session.client_number
            given = self.session or session
            expected, listed = (set(found.info.endpoints) for found in (given, session))
            if connection.session is None or connection.session.info.boot_id != session.info.boot_id:
                self._is_complete = len(self._connections) == 1  # where one process is new, the others may be, too
        # A service on several machines lists what changes as actors move; that it is the same one is said by its instance.
        if listed != expected and (not session.info.instance_id or session.info.instance_id != given.info.instance_id):
            raise HandshakeError(
                f"endpoints: expected a runner of the same service as {self._given.target}, which lists {sorted(expected)}, received one "
                f"that lists {sorted(listed)}",
                field="endpoints",
            )

    def on_reboot(self, connection: Connection) -> None:
        """Close the episodes of a serving process that has a successor. Under the lock."""
        self._on_loss(connection)

    def on_absence(self, connection: Connection) -> None:
        """Close the episodes of a runner that cannot be reached while others can: it died, so waiting is pointless. Under the lock."""
        if connection.episodes_open and self._is_open():
            self._on_loss(connection, is_replaced=False, place=self.place)
            connection.reset_identity()

    def close(self) -> None:
        """Wake all callers with ClientClosedError, end the streams, join the readers. Idempotent."""
        with self.shared.lock:
            self._is_closed = True
            connections = self._connections
            for connection in connections:
                connection.shut()
            self.shared.wake_up_queue.wake_all()
        for connection in connections:
            connection.close()

    def abandon(self) -> bool:
        """Let the readers end everything; return whether there were any. Takes no lock: the last reference to a client may go anywhere."""
        self.shared.is_abandoned = True
        for connection in self._connections:
            connection.abandon()
        return self._given.is_started

    def _is_open(self) -> bool:
        return any(connection.is_open for connection in self._connections)

    def _wait_for_others(self, timeout_s: float) -> None:
        """Let all runners connect, so that new episodes are spread; one that fails twice counts as away. Under the lock."""
        before = {connection: connection.failures for connection in self._connections}

        def is_settled(connection: Connection) -> bool:
            return connection.is_open or connection.refusal is not None or connection.failures >= before.get(connection, 0) + 2

        self.shared.changed.wait_for(lambda: self._is_closed or all(map(is_settled, self._connections)), timeout_s)

    def _is_newly_missing(self, connection: Connection) -> bool:
        return not connection.is_open and connection.target not in self._missed

    def _refusal(self) -> PolicyServerError | None:
        """Return why the given address refused this client, if all refuse it."""
        return self._given.refusal if all(connection.refusal for connection in self._connections) else None

    def _make(self, target: str, spaces: tuple[gym.Space[Any] | None, gym.Space[Any] | None]) -> Connection:
        return Connection(target, self._config, spaces, self.shared, self)

    def _learn(self, session: NegotiatedSession) -> None:
        """Take note of what the given address says, and connect to the runners that it lists if they are not the same as before."""
        before, info = self.session, session.info
        made: list[Connection] = []
        targets: tuple[str, ...] | None = None
        if self._config.spread_episodes and (before is None or set(before.info.endpoints) != set(info.endpoints)):
            targets = self._targets(info.endpoints)
            made = self._make_all(targets, info)
        with self.shared.lock:
            self.session = session
            gone = made if self._is_closed or targets is None else self._replace(targets, made)
        for connection in gone:
            connection.close()

    def _targets(self, listed: Sequence[str]) -> tuple[str, ...]:
        targets = reachable(self._given.target, listed)
        if not targets and len(listed) > 1:
            _log.warning(
                "%s: all episodes go through this address, because the server does not list it: %s", self._given.target, ", ".join(listed)
            )
        return targets or (self._given.target,)

    def _make_all(self, targets: Sequence[str], info: ServerInfo) -> list[Connection]:
        """Prepare the connections that are new."""
        here = {connection.target for connection in self._connections}
        made = []
        for target in targets:
            if target not in here:
                try:
                    made.append(self._make(target, (info.observation_space, info.action_space)))
                except ValueError as error:
                    _log.warning("%s: no episodes go to this serving runner: %s", target, error)
        return made

    def _replace(self, targets: Sequence[str], made: Sequence[Connection]) -> list[Connection]:
        """Take up new connections, and return those that are to be closed, whose runners are no more. Under the lock."""
        found = {connection.target: connection for connection in (*self._connections, *made)}
        gone = [connection for connection in self._connections if connection.target not in targets]
        self._connections = tuple(found[target] for target in targets if target in found)
        for connection in made:
            connection.start()
        for connection in gone:
            self._on_loss(connection, is_replaced=False)
        return gone


_UNIX = "unix:"


def reachable(given: str, listed: Sequence[str]) -> tuple[str, ...]:
    """Find the targets of all serving runners as seen from here, in the listed order.

    A server knows only what it listens on: 0.0.0.0, a name inside its container, a folder that is mounted elsewhere here. So if all runners
    share one host (or folder), it is the one that this client was given. If the given port (or file name) is not among the listed ones,
    there is a tunnel or a proxy in between, and the listed ports mean nothing here, or belong to another server.

    Args:
        given: the target that reaches one of them.
        listed: what that one says of all.

    Returns:
        The targets; none if the others cannot be told.
    """
    try:
        targets = dict.fromkeys(parse_address(address) for address in listed)
    except ValueError:
        return ()
    alike = [target for target in targets if target.startswith(_UNIX) == given.startswith(_UNIX)]
    place, name = _split(given)
    names = [_split(target)[1] for target in alike]
    if name in names and len({_split(target)[0] for target in alike}) == 1:
        return tuple(place + other for other in names)
    return tuple(alike) if given in alike else ()


def _split(target: str) -> tuple[str, str]:
    """Split into host and port, or folder and file name."""
    separator = "/" if target.startswith(_UNIX) else ":"
    scheme = _UNIX if target.startswith(_UNIX) else ""
    folder, slash, name = target.removeprefix(scheme).rpartition(separator)
    return scheme + folder + slash, name
