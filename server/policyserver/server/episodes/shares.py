"""What each connection may take when several want more than there is: open episodes, and rows of one pass.

A lone connection may take all. Shares bind only under contention, and by connection: a client that has taken all leaves room to its
neighbours as its episodes end, and one that floods the server with rows delays them by one short pass each time. This is fairness among
well-meaning clients, not security: a client that opens more connections gets more shares.
"""

from __future__ import annotations

import asyncio
import time

from policyserver.common.errors import PolicyServerError, ServerOverloadedError
from policyserver.server.episodes.batch import Submission
from policyserver.server.episodes.episode_table import EpisodeTable, ServedClient
from policyserver.server.episodes.row_checks import id_error

ROWS_OF_A_SHARED_PASS = 256
"""Rows of a pass while several connections ask: the net works at full speed, and the pass takes a few milliseconds."""
_ASKS_S = 5.0  # after its newest rows a connection still counts as one that asks
_WANTS_S = 30.0  # after its newest refusal a connection still counts as one that waits for room


class EpisodeShares:
    """Divide the open episodes. Owned by the loop thread."""

    def __init__(self, table: EpisodeTable) -> None:
        self._table = table
        self._refused_s: dict[str, float] = {}
        """When connections found no room last."""
        self.starts_refused = 0

    @property
    def room(self) -> int:
        """How many episodes more the server may hold."""
        return self._table.max_open - self._table.open

    def room_of(self, client: ServedClient) -> int:
        """Return how many episodes more a client's connection may open."""
        room = self.room
        waiting = self._waiting_beside(client.connection)
        if not waiting:
            return room
        taken: dict[str, int] = {}
        for other in self._table.clients():
            taken[other.connection] = taken.get(other.connection, 0) + len(other.aliases) + other.announced
        takers = {connection for connection, episodes in taken.items() if episodes} | waiting | {client.connection}
        share = max(self._table.max_open // len(takers), 1)
        return max(min(room, share - taken.get(client.connection, 0)), 0)

    def refusal(self, client: ServedClient) -> ServerOverloadedError:
        """Note that a connection found no room: until it does, or for half a minute, the others keep to their shares."""
        self.starts_refused += 1
        self._refused_s[client.connection] = _now_s()
        most = self._table.max_open
        text = f"expected at most {most} open episodes (episodes.max_open)"
        if self._table.open < most:
            text += ", and of one connection its share of them, while others wait for room"
        return ServerOverloadedError(f"{text}; end some first", reason="TOO_MANY_EPISODES")

    def found_room(self, client: ServedClient) -> None:
        """Note that a connection waits no longer."""
        self._refused_s.pop(client.connection, None)

    def _waiting_beside(self, connection: str) -> set[str]:
        if not self._refused_s:
            return set()
        since_s = _now_s() - _WANTS_S
        self._refused_s = {name: refused_s for name, refused_s in self._refused_s.items() if refused_s > since_s}
        return self._refused_s.keys() - {connection}


class Admission:
    """Admits the episodes of one batch."""

    def __init__(self, shares: EpisodeShares) -> None:
        self._shares = shares
        self._room: dict[str, int] = {}
        self._room_of_all = shares.room

    def refusal(self, client: ServedClient, episode_id: str) -> PolicyServerError | None:
        """Take room for an episode, or say that no room is left, or that its id is too long."""
        if error := id_error("episode_ids", episode_id):
            return error
        connection = client.connection
        if connection not in self._room:
            self._room[connection] = self._shares.room_of(client)
        if min(self._room_of_all, self._room[connection]) <= 0:
            return self._shares.refusal(client)
        self._room_of_all -= 1
        self._room[connection] -= 1
        self._shares.found_room(client)
        return None


class PassShares:
    """Divide the rows of a pass. Owned by the loop thread."""

    def __init__(self) -> None:
        self._asked_s: dict[str, float] = {}
        """When connections asked last."""

    def asks(self, client: ServedClient) -> None:
        """Note that a connection asks."""
        self._asked_s[client.connection] = time.monotonic()

    def divide(self, waiting: list[Submission]) -> tuple[list[Submission], list[Submission]]:
        """Choose the rows of the next pass: all, unless several connections ask for more than a shared pass takes.

        Returns:
            The submissions with rows in this pass, whose other rows are in `later`, and those that wait for another.
        """
        if len(self._asked_s) == 1 or sum([len(submission.todo) for submission in waiting]) <= ROWS_OF_A_SHARED_PASS:
            return waiting, []
        rows: dict[str, int] = {}
        for submission in waiting:
            rows[submission.client.connection] = rows.get(submission.client.connection, 0) + len(submission.todo)
        self.forget()
        if len(self._asked_s.keys() | rows) == 1:
            return waiting, []
        left = _shares(rows, ROWS_OF_A_SHARED_PASS)
        chosen, others = [], []
        for submission in waiting:
            taken = min(left[submission.client.connection], len(submission.todo))
            left[submission.client.connection] -= taken
            if not taken:
                others.append(submission)
                continue
            submission.todo, submission.later = submission.todo[:taken], submission.todo[taken:]
            chosen.append(submission)
        return chosen, others

    def forget(self) -> None:
        """Forget the connections that no longer ask."""
        since_s = time.monotonic() - _ASKS_S
        self._asked_s = {name: asked_s for name, asked_s in self._asked_s.items() if asked_s > since_s}


def _shares(wanted: dict[str, int], total: int) -> dict[str, int]:
    """Divide a total: each gets one at least and no more than it wants; what one leaves goes to the others."""
    shares = {}
    for number, (name, count) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        shares[name] = max(min(count, total // (len(wanted) - number)), 1)
        total = max(total - shares[name], 0)
    return shares


def connection_of(peer: str, client_id: str) -> str:
    """Name the connection that a call came over: gRPC's peer, or on a unix socket, where all peers are one, the client."""
    return f"{peer} {client_id}" if peer.startswith("unix:") else peer


def _now_s() -> float:
    return asyncio.get_running_loop().time()
