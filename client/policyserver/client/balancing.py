"""Several serving runners as one service: a stream to each, and which of them gets the next episode.

In the handshake the runner at the given address lists the other runners, and the client connects to all of them. A new episode goes to the
connected runner that has the fewest open ones of this client, and stays there: only that process has its state. Of equal runners the one
listed first gets it, and the server begins the list for each client with another runner. So a thousand clients with one episode each are
spread as evenly as one client with a thousand, and nothing is left to chance. Where the first has more to do than others for the clients of
the service together, as the server says every few seconds, they get a part of its episodes (`listed_runners.Preference`).

Runners that come or go are told on the streams: new episodes use a new one once it is connected, and a connection to one that is listed no
more is closed once this client has no episodes there. The given address is tried for as long as the client lives.

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
from policyserver.client.listed_runners import Preference, by_address
from policyserver.client.messages import NegotiatedSession
from policyserver.client.rows import ClientEpisode, Home, OutgoingRows
from policyserver.client.server_info import EndpointLoad
from policyserver.client.shared import ProcessorCore, Shared
from policyserver.client.wake_up_queue import Call
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
        self._preference = Preference()
        self._listed: frozenset[str] = frozenset()
        """What the newest list named, as the server calls them."""
        self._lacks_some = False
        """There was no thread for the connection to a listed runner: the next list is taken up, though it is the same."""
        self._leaving: tuple[Connection, ...] = ()
        """Those to runners that were left, whose readers may have yet to end."""
        self._listing = threading.Lock()
        """Held while a list is taken up: it is told on each stream. Taken before the client's lock."""
        self._missed: set[str] = set()
        """Runners that the log says are missing."""
        self.given = self._make(target, (observation_space, action_space))
        """The connection to the address that was given."""
        self.connections: tuple[Connection, ...] = (self.given,)
        """All, in the order in which equals are chosen; the given one among them. Replaced under the lock, never changed."""

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
                self.given.start()
            shared.changed.wait_for(lambda: self._is_closed or self._is_open() or self._refusal() is not None, timeout_s)
            self.check()
            if not self._is_open() or self.session is None:
                raise self.given.unavailable(timeout_s)
            if self._is_complete:
                return self.session
            self._wait_for_others(min(timeout_s, _OTHERS_TIMEOUT_S))
            self.check()
            self._is_complete = True
            session, missing = self.session, [connection for connection in self.connections if self._is_newly_missing(connection)]
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
        if self.given.refusal is not None and (refusal := self._refusal()) is not None:
            raise copy.copy(refusal)

    @property
    def rows_waiting(self) -> int:
        """Steps that wait to be sent. Under the lock."""
        return sum(connection.rows_waiting for connection in self.connections)

    def place(self) -> Connection:
        """Choose the runner of a new episode. Under the lock."""
        if len(self.connections) == 1:
            return self.given
        now_s = time.monotonic()
        for connection in [connection for connection, until_s in self._rests.items() if until_s <= now_s]:
            del self._rests[connection]
            connection.retires = False
        known = [connection for connection in self.connections if connection.session is not None]
        ranks = [
            (not each.is_open, each.retires or not each.is_listed, now_s - each.stale_at_s < _REST_S, each.episodes_open) for each in known
        ]
        lowest = min(ranks)
        equals = [connection for connection, rank in zip(known, ranks, strict=True) if rank == lowest]
        chosen = equals[self._preference.choose([connection.target for connection in equals])] if len(equals) > 1 else equals[0]
        if chosen.stale_at_s:  # this episode tells whether it still is; until then no other one begins there
            chosen.stale_at_s = now_s
        return chosen

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
        episode.connection = chosen
        chosen.episodes_open += 1
        refusing.release()
        return True

    def divide(self, rows: OutgoingRows) -> list[OutgoingRows]:
        """Cut rows into those of each runner. Under the lock."""
        if len(self.connections) == 1 or len(rows.episodes) <= 1:
            return [rows] if rows.episodes else []
        found: dict[Home | None, list[int]] = {}
        for row, episode in enumerate(rows.episodes):
            found.setdefault(episode.connection, []).append(row)
        return [rows] if len(found) == 1 else [rows.select(picked) for picked in found.values()]

    def stale_runners(self) -> tuple[str, ...]:
        """Return the targets of connected runners whose newest answer is stale."""
        with self.shared.lock:
            return tuple(connection.target for connection in self.connections if connection.is_open and connection.stale_at_s)

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
            for connection in self.connections:
                connection.wake_sender()

    def cancel(self, call: Call) -> None:
        """Cancel a queued call. By the thread that waited for it, under the lock."""
        if call.is_waiting:
            call.is_waiting = False
            for connection in self.connections:
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

    def check_handshake(self, connection: Connection, session: NegotiatedSession) -> None:
        """Check a handshake: the given address lists the runners of the service, and the others must list the same. A reader's thread.

        Raises:
            HandshakeError: the endpoint belongs to another service.
        """
        if connection is self.given:
            with self.shared.lock:
                self.session = session
            # Where another process answers there, the runners of the one before are gone.
            self._take_up(connection, session.info.endpoints, session.info.endpoint_loads, stays_open=False)
        with self.shared.lock:
            if self.shared.client_number is None:
                self.shared.client_number = session.client_number
                self._preference.begin(session.client_number)
            given = self.session or session
            expected, listed = self._listed or set(given.info.endpoints), set(session.info.endpoints)
            if connection.session is None or connection.session.info.boot_id != session.info.boot_id:
                self._is_complete = len(self.connections) == 1  # where one process is new, the others may be, too
        # A service on several machines lists what changes as actors move; that it is the same one is said by its instance.
        if listed != expected and (not session.info.instance_id or session.info.instance_id != given.info.instance_id):
            raise HandshakeError(
                f"endpoints: expected a runner of the same service as {self.given.target}, which lists {sorted(expected)}, received one "
                f"that lists {sorted(listed)}",
                field="endpoints",
            )

    def on_endpoints(self, connection: Connection, listed: Sequence[str], loads: Sequence[EndpointLoad]) -> None:
        """Take up what a runner says of all of them: where they are, and what they have to do. A reader's thread."""
        self._take_up(connection, listed, loads, stays_open=True)

    def on_reboot(self, connection: Connection) -> None:
        """Close the episodes of a serving process that has a successor. Under the lock."""
        self._on_loss(connection)

    def on_absence(self, connection: Connection) -> None:
        """Close the episodes of a runner that cannot be reached while others can: it died, so waiting is pointless. Under the lock."""
        if connection.episodes_open and self._is_open():
            self._on_loss(connection, is_replaced=False, place=self.place)
            connection.reset_identity()

    def on_vacant(self, connection: Connection) -> None:
        """Leave a runner that is listed no more: this client has no episode there any longer. By any thread, under the lock."""
        if connection is not self.given and connection in self.connections:  # a runner may come back at the given address
            self.connections = tuple(each for each in self.connections if each is not connection)
            self._leave([connection])

    def close(self) -> None:
        """Wake all callers with ClientClosedError, end the streams, join the readers. Idempotent."""
        with self.shared.lock:
            self._is_closed = True
            connections = *self.connections, *self._leaving
            for connection in connections:
                connection.shut()
            self.shared.wake_up_queue.wake_all()
        for connection in connections:
            connection.close()

    def abandon(self) -> bool:
        """Let the readers end everything; return whether there were any. Takes no lock: the last reference to a client may go anywhere."""
        self.shared.is_abandoned = True
        for connection in self.connections:
            connection.abandon()
        return self.given.is_running

    def _is_open(self) -> bool:
        return any(connection.is_open for connection in self.connections)

    def _wait_for_others(self, timeout_s: float) -> None:
        """Let all runners connect, so that new episodes are spread; one that fails twice counts as away. Under the lock."""
        before = {connection: connection.failures for connection in self.connections}

        def is_settled(connection: Connection) -> bool:
            is_away = connection.refusal is not None or not connection.is_listed
            return connection.is_open or is_away or connection.failures >= before.get(connection, 0) + 2

        self.shared.changed.wait_for(lambda: self._is_closed or all(map(is_settled, self.connections)), timeout_s)

    def _is_newly_missing(self, connection: Connection) -> bool:
        return connection.is_listed and not connection.is_open and connection.target not in self._missed

    def _refusal(self) -> PolicyServerError | None:
        """Return why the given address refused this client, if all refuse it but for those that are gone and listed no more."""
        left = (each for each in self.connections if each.is_listed or each.is_open)
        return self.given.refusal if all(connection.refusal for connection in left) else None

    def _make(self, target: str, spaces: tuple[gym.Space[Any] | None, gym.Space[Any] | None]) -> Connection:
        return Connection(target, self._config, spaces, self.shared, self)

    def _take_up(self, connection: Connection, listed: Sequence[str], loads: Sequence[EndpointLoad], *, stays_open: bool) -> None:
        """Connect to listed runners that are new, and leave those that are listed no more, unless one with open episodes `stays_open`."""
        if not self._config.spread_episodes:
            return
        # A runner that is about to go does not list itself: then what is listed is known by the others.
        sources = (connection.target, *(each.target for each in self.connections))
        found = next((found for each in sources if (found := by_address(each, listed))), {})
        targets = tuple(dict.fromkeys(found.values()))
        is_given = connection is self.given
        with self._listing:
            if (self._lacks_some or self._listed != frozenset(listed)) and (targets or is_given):
                if not targets and len(listed) > 1:
                    names = ", ".join(listed)
                    _log.warning(
                        "%s: all episodes go through this address, because the server does not list it: %s", connection.target, names
                    )
                self._listed = frozenset(listed)
                made = self._make_all(targets or (self.given.target,))
                with self.shared.lock:
                    troubles = [] if self._is_closed else self._replace(targets or (self.given.target,), made, stays_open)
                for trouble in troubles:
                    _log.warning("no episodes go to this serving runner before its address is told again: %s", trouble)
        with self.shared.lock:
            self._preference.loads = {found[load.address]: load.episodes_open for load in loads if load.address in found}

    def _make_all(self, targets: Sequence[str]) -> list[Connection]:
        """Prepare the connections that are new."""
        info = cast(NegotiatedSession, self.session).info
        with self.shared.lock:
            here = {connection.target for connection in self.connections}
            for connection in self.connections:
                connection.is_listed |= connection.target in targets  # so that it is not left meanwhile
        made = []
        for target in targets:
            if target not in here:
                try:
                    made.append(self._make(target, (info.observation_space, info.action_space)))
                except ValueError as error:
                    _log.warning("%s: no episodes go to this serving runner: %s", target, error)
        return made

    def _replace(self, targets: Sequence[str], made: Sequence[Connection], stays_open: bool) -> list[PolicyServerError]:
        """Take up new connections, and leave those whose runners are no more. Returns why some can't be taken up. Under the lock."""
        started: list[Connection] = []
        troubles: list[PolicyServerError] = []
        for connection in made:
            try:
                connection.start()
                started.append(connection)
            except ServerUnavailableError as error:
                troubles.append(error)
        self._lacks_some = bool(troubles)
        found = {connection.target: connection for connection in (*self.connections, *started)}
        kept = [found[target] for target in targets if target in found]
        unlisted = [connection for connection in self.connections if connection not in kept]
        for connection in found.values():
            connection.is_listed = connection in kept
        # A runner may come back at the given address, and open episodes go on for as long as their process lives.
        staying = [each for each in unlisted if each is self.given or (stays_open and each.is_open and each.episodes_open)]
        gone = [connection for connection in unlisted if connection not in staying]
        self.connections = (*kept, *staying)
        for connection in gone:
            connection.retires = True
            self._on_loss(connection, is_replaced=False, place=self.place)
        self._leave(gone)
        return troubles

    def _leave(self, gone: Sequence[Connection]) -> None:
        """End connections without a wait: the thread may be the reader of one. `close` waits for their readers. Under the lock."""
        for connection in gone:
            connection.shut()
            self._rests.pop(connection, None)
        self._leaving = (*(each for each in self._leaving if each.is_running), *gone)
