"""The rows of one call: prepared, divided by runner, sent, awaited, sent again if a server was busy or replaced, settled row by row."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from policyserver.client.balancing import Balancer
from policyserver.client.config import ClientConfig
from policyserver.client.connection import Connection
from policyserver.client.episodes import ClientEpisodes
from policyserver.client.errors import BatchError
from policyserver.client.messages import NegotiatedSession, Reply, SpaceCodec
from policyserver.client.rows import OutgoingRows, Steps
from policyserver.client.wake_up_queue import Call, CallPart
from policyserver.common.errors import PolicyServerError, ServerInternalError
from policyserver.common.flags import StepFlag
from policyserver.common.spaces import Array

_LEARNER_BEHIND = "LEARNER_BEHIND"
_SHUTTING_DOWN = "SHUTTING_DOWN"
_TRY_LATER = frozenset({_LEARNER_BEHIND, _SHUTTING_DOWN})
_ASK_AGAIN_S = 10.0  # a server says when there is room; after this time it is asked again anyway
_NO_WAIT = int(StepFlag.NO_WAIT)


class Outcome:
    """The actions and errors of a call's rows."""

    def __init__(self, codec: SpaceCodec, rows: int, errors: dict[int, PolicyServerError]) -> None:
        self.errors = errors
        """What went wrong, by row of the call."""
        self.weights_seq_nos: Array = np.zeros(rows, dtype=np.int64)
        """Policy versions that answered, one per row; 0 in rows without an answer."""
        self.stale: Array = np.zeros(rows, dtype=np.bool_)
        """Whether each row's answer is stale; False in rows without an answer."""
        self._codec = codec
        self._rows = rows
        self._columns: list[Array] | None = None

    @property
    def columns(self) -> list[Array]:
        """The actions, one column per leaf; zeros in rows without."""
        if self._columns is None:
            self._columns = self._codec.zeros(self._rows)
        return self._columns

    def check(self, actions: Any = None) -> None:
        """Raise a BatchError if rows failed; it has the `actions` of the others."""
        if self.errors:
            raise BatchError(self._rows, actions, self.errors)

    def take(self, part: CallPart, answered: Sequence[int]) -> None:
        """Take the actions of the rows of a part that were applied."""
        reply = cast(Reply, part.reply)
        if len(answered) == self._rows:  # the whole call in one part: its order is the call's
            whole = slice(part.first, part.first + self._rows)
            self._columns = [actions[whole] for actions in reply.actions]
            self.weights_seq_nos[:] = reply.weights_seq_nos[whole]
            self.stale[:] = reply.is_stale
            return
        places = [part.rows.indices[row] for row in answered]
        sources = [part.first + row for row in answered]
        for column, actions in zip(self.columns, reply.actions, strict=True):
            column[places] = actions[sources]
        self.weights_seq_nos[places] = reply.weights_seq_nos[sources]
        self.stale[places] = reply.is_stale


class Exchange:
    """Brings rows to the server and the answers back, for any number of threads at once."""

    def __init__(self, episodes: ClientEpisodes, balancer: Balancer, config: ClientConfig) -> None:
        self._episodes = episodes
        self._balancer = balancer
        self._config = config
        self._threads = threading.local()

    def step(self, session: NegotiatedSession, steps: Steps, timeout_s: float) -> Outcome:
        """Do the next step of n different episodes.

        Args:
            session: what the columns were encoded for.
            steps: one of each episode.
            timeout_s: longest time to wait, seconds.

        Returns:
            The actions, and the errors by row.

        Raises:
            ClientClosedError: the client was closed.
            HandshakeError: the server was replaced by one that this client cannot talk to; so is AuthenticationError. With several runners
                it is an error of that one's rows.
        """
        deadline = time.monotonic() + timeout_s
        balancer, call = self._balancer, Call(self._waiter())
        try:
            with balancer.shared.lock:
                balancer.check()
                rows, errors = self._episodes.prepare(steps, balancer.place)
                waiting = balancer.divide(rows)
                self._send(call, waiting)
            if waiting:
                balancer.wait(call, timeout_s)
            return self._finish(call, waiting, Outcome(session.action, len(steps.ids), errors), deadline, timeout_s)
        except BaseException:
            self._abandon(call, steps.ids)
            raise

    def step_one(
        self,
        session: NegotiatedSession,
        episode_id: str,
        kind: int,
        observation: tuple[bytes, ...],
        action: tuple[bytes, ...],
        timeout_s: float,
    ) -> tuple[list[Array], int]:
        """Do the next step of one episode: `step` for the usual case, a single row that is applied at once.

        Returns:
            Columns of actions, one per leaf, and which of their rows is this one's.

        Raises:
            PolicyServerError: as `step`, or the error of the row.
        """
        deadline = time.monotonic() + timeout_s
        episodes, balancer = self._episodes, self._balancer
        lock, call = balancer.shared.lock, Call(self._waiter())
        try:
            with lock:
                balancer.check()
                rows = episodes.prepare_one(episode_id, kind, observation, action, balancer.place)
                connection = Connection.of(rows)
                part = call.add_one(rows, connection)
                connection.send_one(part)
            balancer.wait(call, timeout_s)
            with lock:
                reply = part.reply
                if reply is not None and reply.codes[part.first] == 0:
                    balancer.wake_next(call)
                    episodes.commit_one(rows, reply.handles[part.first], lost=part.epoch != connection.epoch)
                    return reply.actions, part.first
            outcome = self._finish(call, [rows], Outcome(session.action, 1, {}), deadline, timeout_s)
        except BaseException:
            self._abandon(call, (episode_id,))
            raise
        if outcome.errors:
            raise outcome.errors[0]
        return outcome.columns, 0

    def note_answers(self, outcome: Outcome) -> None:
        """Keep the policy versions behind a call's answers, and which of these are stale, for the calling thread."""
        self._threads.answers = outcome.weights_seq_nos, outcome.stale

    def answers(self) -> tuple[Array, Array]:
        """Return what the calling thread's newest `note_answers` kept, int64 (n,) and bool (n,)."""
        nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        kept: tuple[Array, Array] = getattr(self._threads, "answers", nothing)
        return kept

    def take_learner_wait_s(self) -> float:
        """Return how long the calling thread's calls waited for the learner since it asked last, seconds."""
        waited_s: float = getattr(self._threads, "learner_wait_s", 0.0)
        self._threads.learner_wait_s = 0.0
        return waited_s

    def _finish(self, call: Call, waiting: list[OutgoingRows], outcome: Outcome, deadline: float, timeout_s: float) -> Outcome:
        """Settle the answers of a finished call; send again what the server refused for the moment or did not get.

        Args:
            call: what was sent and waited for.
            waiting: its rows.
            outcome: takes the answers.
            deadline: end of the time, on the clock of time.monotonic, seconds.
            timeout_s: that time, for the errors, seconds.
        """
        balancer, lock = self._balancer, self._balancer.shared.lock
        pause_s, learner_wait_s = self._config.overload_backoff_initial_s, self._config.learner_wait_timeout_s
        while waiting:
            with lock:
                balancer.wake_next(call)
                waiting, refusals, held = self._settle(call, outcome)
            if held:  # which is not part of the call's time
                began = time.monotonic()
                balancer.wait_for_room(held, min(_ASK_AGAIN_S, learner_wait_s))
                waited_s = time.monotonic() - began
                deadline, learner_wait_s = deadline + waited_s, learner_wait_s - waited_s
                self._threads.learner_wait_s = getattr(self._threads, "learner_wait_s", 0.0) + waited_s
                if learner_wait_s <= 0:
                    waiting = [rows.with_flags(_NO_WAIT) for rows in waiting]
            elif refusals:
                balancer.pause(min(pause_s, deadline - time.monotonic()))
                pause_s = min(2 * pause_s, self._config.overload_backoff_max_s)
            if waiting:
                with lock:
                    waiting = self._still_waiting(waiting, refusals, outcome, deadline, timeout_s)
            if waiting:
                call = Call(self._waiter())
                try:
                    with lock:
                        self._send(call, waiting)
                    balancer.wait(call, deadline - time.monotonic())
                except BaseException:
                    self._abandon(call, ())
                    raise
        return outcome

    def _abandon(self, call: Call, ids: Iterable[str]) -> None:
        """Give up a call that an exception ended, wherever it came, such as an interrupt. May be repeated."""
        with self._balancer.shared.lock:
            self._balancer.cancel(call)
            self._balancer.wake_next(call)
            self._episodes.abandon(ids)

    def _send(self, call: Call, waiting: Sequence[OutgoingRows]) -> None:
        for rows in waiting:
            Connection.of(rows).send(call, rows)

    def _waiter(self) -> threading.Lock:
        """Return the lock that the calling thread sleeps on and holds while it is awake; a new one if an interrupt left it released."""
        try:
            waiter = cast(threading.Lock, self._threads.waiter)
            if waiter.locked():
                return waiter
        except AttributeError:
            pass
        waiter = self._threads.waiter = threading.Lock()
        waiter.acquire()
        return waiter

    def _settle(self, call: Call, outcome: Outcome) -> tuple[list[OutgoingRows], dict[int, PolicyServerError], dict[Connection, int]]:
        """Settle the answers of a call.

        Returns:
            The rows that still need an answer, why the server refused some of them for now, and the runners that wait for their learner,
            with how often each had said that there is room.
        """
        waiting: list[OutgoingRows] = []
        refusals: dict[int, PolicyServerError] = {}
        held: dict[Connection, int] = {}
        for part in call.parts:
            if part.reply is None:
                waiting += self._balancer.divide(part.rows)
                continue
            rows, connection = part.rows, Connection.of(part.rows)
            lost = part.epoch != connection.epoch
            end = part.first + len(rows)
            handles = part.reply.handles[part.first : end]
            codes = part.reply.codes[part.first : end]
            if not any(codes):
                self._episodes.commit(rows, handles, lost=lost)
                outcome.take(part, range(len(rows)))
                continue
            answered = [row for row, code in enumerate(codes) if code == 0]
            later, moved = [], False
            for row in (row for row, code in enumerate(codes) if code):
                error = part.reply.errors.get(part.first + row) or ServerInternalError("the server refused the row without a reason")
                if error.reason in _TRY_LATER:
                    refusals[rows.indices[row]] = error
                    later.append(row)
                    if error.reason == _LEARNER_BEHIND:
                        held[connection] = part.rooms
                    elif rows.episodes[row].sequence == 0:  # its start, which changed nothing there
                        moved |= self._balancer.move_start(rows.episodes[row])
                else:
                    self._episodes.refuse(rows, row, error)
                    outcome.errors[rows.indices[row]] = error
            self._episodes.commit(rows.select(answered), [handles[row] for row in answered], lost=lost)
            outcome.take(part, answered)
            if later:
                left = rows.select(later)
                waiting += self._balancer.divide(left) if moved else [left]
        return waiting, refusals, held

    def _still_waiting(
        self, waiting: list[OutgoingRows], refusals: dict[int, PolicyServerError], outcome: Outcome, deadline: float, timeout_s: float
    ) -> list[OutgoingRows]:
        """Find the rows that are worth sending again; the others get their errors."""
        self._balancer.check()
        if time.monotonic() < deadline:
            return self._drop_refused(self._drop_lost(waiting, outcome), outcome)
        for rows in waiting:
            self._episodes.abandon([episode.id for episode in rows.episodes])
            for row, index in enumerate(rows.indices):
                refusal = refusals.get(index)
                if refusal is not None and refusal.reason != _LEARNER_BEHIND:  # it changed nothing: the episode may do something else
                    self._episodes.refuse(rows, row, refusal)
                    outcome.errors[index] = refusal
                else:  # it may have been applied: it stays in flight
                    outcome.errors[index] = Connection.of(rows).timeout(timeout_s)
        return []

    def _drop_lost(self, waiting: Sequence[OutgoingRows], outcome: Outcome) -> list[OutgoingRows]:
        """Sort out the rows of episodes that have ended meanwhile."""
        left = []
        for rows in waiting:
            lost = {row for row, episode in enumerate(rows.episodes) if not self._episodes.is_open(episode)}
            for row in lost:
                outcome.errors[rows.indices[row]] = self._episodes.absent(rows.episodes[row].id)
            if lost:
                rows = rows.select([row for row in range(len(rows)) if row not in lost])
            if len(rows):
                left.append(rows)
        return left

    def _drop_refused(self, waiting: Sequence[OutgoingRows], outcome: Outcome) -> list[OutgoingRows]:
        """Sort out the rows for runners that this client cannot talk to any more. They may have been applied: they stay in flight."""
        left = []
        for rows in waiting:
            refusal = Connection.of(rows).refusal
            if refusal is None:
                left.append(rows)
                continue
            self._episodes.abandon([episode.id for episode in rows.episodes])
            outcome.errors.update((index, copy.copy(refusal)) for index in rows.indices)
        return left
