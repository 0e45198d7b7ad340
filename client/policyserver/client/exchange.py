"""One call's rows: frozen, divided by runner, sent, awaited, sent again where a server was busy or was replaced, settled row by row."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from policyserver.client.calls import Call, Part
from policyserver.client.codec import SpaceCodec
from policyserver.client.config import ClientConfig
from policyserver.client.ledger import Ledger
from policyserver.client.router import Router
from policyserver.client.rows import Rows
from policyserver.client.transport_messages import Agreement, Reply
from policyserver.common.errors import PolicyServerError, ServerInternalError
from policyserver.common.flags import StepFlag
from policyserver.common.spaces import Array

if TYPE_CHECKING:
    from policyserver.client.transport import Transport

__all__ = ["Exchange", "Outcome"]

_LEARNER_BEHIND = "LEARNER_BEHIND"
_TRY_LATER = frozenset({_LEARNER_BEHIND, "SHUTTING_DOWN"})
_ASK_AGAIN_S = 10.0  # a server says when there is room; one that forgets to is asked again
_NO_WAIT = int(StepFlag.NO_WAIT)


class Outcome:
    """What came of a call's rows."""

    def __init__(self, codec: SpaceCodec, rows: int, errors: dict[int, PolicyServerError]) -> None:
        self.errors = errors
        """What went wrong, by row of the call."""
        self._codec = codec
        self._rows = rows
        self._columns: list[Array] | None = None

    @property
    def columns(self) -> list[Array]:
        """The actions, one column per leaf; zeros in rows without."""
        if self._columns is None:
            self._columns = self._codec.zeros(self._rows)
        return self._columns

    def take(self, part: Part, answered: Sequence[int]) -> None:
        """Take the actions of the rows of a part that were applied."""
        reply = cast(Reply, part.reply)
        if len(answered) == self._rows:  # the whole call in one part: its order is the call's
            self._columns = [actions[part.first : part.first + self._rows] for actions in reply.actions]
            return
        places = [part.rows.indices[row] for row in answered]
        sources = [part.first + row for row in answered]
        for column, actions in zip(self.columns, reply.actions, strict=True):
            column[places] = actions[sources]


class Exchange:
    """Brings rows to the server and the answers back, for any number of threads at once."""

    def __init__(self, ledger: Ledger, router: Router, config: ClientConfig) -> None:
        self._ledger = ledger
        self._router = router
        self._config = config
        self._threads = threading.local()

    def step(
        self,
        agreement: Agreement,
        ids: Sequence[str],
        kinds: Sequence[int],
        observations: tuple[bytes, ...],
        actions: tuple[bytes, ...],
        bad: Mapping[int, PolicyServerError],
        timeout_s: float,
    ) -> Outcome:
        """Do the next step of n different episodes.

        Args:
            agreement: what the columns were encoded for.
            ids: the episodes.
            kinds: what each row is: bits of ACTION_GIVEN, TERMINATED and TRUNCATED.
            observations: one column of n rows per leaf.
            actions: the same, or nothing.
            bad: errors of the rows that stay here.
            timeout_s: longest time to wait, seconds.

        Returns:
            The actions, and the errors by row.

        Raises:
            ClientClosedError: the client was closed.
            HandshakeError: the server was replaced by one that this client cannot talk to; so is AuthenticationError. With several runners
                it is an error of that one's rows.
        """
        deadline = time.monotonic() + timeout_s
        router, call = self._router, Call(self._waiter())
        try:
            with router.shared.lock:
                router.check()
                rows, errors = self._ledger.freeze(ids, kinds, observations, actions, router.place, bad)
                waiting = router.divide(rows)
                self._send(call, waiting)
            if waiting:
                router.wait(call, timeout_s)
            return self._finish(call, waiting, Outcome(agreement.action, len(ids), errors), deadline, timeout_s)
        except BaseException:
            self._abandon(call, ids)
            raise

    def step_one(
        self, agreement: Agreement, episode_id: str, kind: int, observation: tuple[bytes, ...], action: tuple[bytes, ...], timeout_s: float
    ) -> tuple[list[Array], int]:
        """Do the next step of one episode: `step` for the usual case, a single row that is applied at once.

        Returns:
            Columns of actions, one per leaf, and which of their rows is this one's.

        Raises:
            PolicyServerError: as `step`, or the error of the row.
        """
        deadline = time.monotonic() + timeout_s
        ledger, router = self._ledger, self._router
        lock, call = router.shared.lock, Call(self._waiter())
        try:
            with lock:
                router.check()
                rows = ledger.freeze_one(episode_id, kind, observation, action, router.place)
                transport = rows.transport
                part = call.add_one(rows, transport)
                transport.send_one(part)
            router.wait(call, timeout_s)
            with lock:
                reply = part.reply
                if reply is not None and reply.codes[part.first] == 0:
                    router.pass_on(call)
                    ledger.commit_one(rows, reply.handles[part.first], lost=part.epoch != transport.epoch)
                    return reply.actions, part.first
            outcome = self._finish(call, [rows], Outcome(agreement.action, 1, {}), deadline, timeout_s)
        except BaseException:
            self._abandon(call, (episode_id,))
            raise
        if outcome.errors:
            raise outcome.errors[0]
        return outcome.columns, 0

    def take_learner_wait_s(self) -> float:
        """Return how long the calling thread's calls waited for the learner since it asked last, seconds."""
        waited_s: float = getattr(self._threads, "learner_wait_s", 0.0)
        self._threads.learner_wait_s = 0.0
        return waited_s

    def _finish(self, call: Call, waiting: list[Rows], outcome: Outcome, deadline: float, timeout_s: float) -> Outcome:
        """Settle the answers of a call that is over; send again what the server refused for the moment or never got.

        Args:
            call: what was sent and waited for.
            waiting: its rows.
            outcome: takes the answers.
            deadline: end of the time, on the clock of time.monotonic, seconds.
            timeout_s: that time, for the errors, seconds.
        """
        router, lock = self._router, self._router.shared.lock
        pause_s, learner_wait_s = self._config.overload_backoff_initial_s, self._config.learner_wait_timeout_s
        while waiting:
            with lock:
                router.pass_on(call)
                waiting, refusals, held = self._settle(call, outcome)
            if held:  # which is not part of the call's time
                began = time.monotonic()
                router.wait_for_room(held, min(_ASK_AGAIN_S, learner_wait_s))
                waited_s = time.monotonic() - began
                deadline, learner_wait_s = deadline + waited_s, learner_wait_s - waited_s
                self._threads.learner_wait_s = getattr(self._threads, "learner_wait_s", 0.0) + waited_s
                if learner_wait_s <= 0:
                    waiting = [rows.with_flags(_NO_WAIT) for rows in waiting]
            elif refusals:
                router.pause(min(pause_s, deadline - time.monotonic()))
                pause_s = min(2 * pause_s, self._config.overload_backoff_max_s)
            if waiting:
                with lock:
                    waiting = self._still_waiting(waiting, refusals, outcome, deadline, timeout_s)
            if waiting:
                call = Call(self._waiter())
                try:
                    with lock:
                        self._send(call, waiting)
                    router.wait(call, deadline - time.monotonic())
                except BaseException:
                    self._abandon(call, ())
                    raise
        return outcome

    def _abandon(self, call: Call, ids: Iterable[str]) -> None:
        """Give up what an exception broke off, an interrupt above all, wherever it came. May be repeated."""
        with self._router.shared.lock:
            self._router.withdraw(call)
            self._router.pass_on(call)
            self._ledger.abandon(ids)

    def _send(self, call: Call, waiting: Sequence[Rows]) -> None:
        for rows in waiting:
            rows.transport.send(call, rows)

    def _waiter(self) -> threading.Lock:
        """Give each thread one lock to sleep on, held by it whenever it is awake; another one if an interrupt left that undone."""
        try:
            waiter = cast(threading.Lock, self._threads.waiter)
            if waiter.locked():
                return waiter
        except AttributeError:
            pass
        waiter = self._threads.waiter = threading.Lock()
        waiter.acquire()
        return waiter

    def _settle(self, call: Call, outcome: Outcome) -> tuple[list[Rows], dict[int, PolicyServerError], dict[Transport, int]]:
        """Book the answers.

        Returns:
            The rows that still need one, why the server refused some of them for now, and the runners that are held up by their learner,
            with how often each had said that there is room.
        """
        waiting: list[Rows] = []
        refusals: dict[int, PolicyServerError] = {}
        held: dict[Transport, int] = {}
        for part in call.parts:
            if part.reply is None:
                waiting.append(part.rows)
                continue
            rows, lost = part.rows, part.epoch != part.rows.transport.epoch
            end = part.first + len(rows)
            handles = part.reply.handles[part.first : end]
            codes = part.reply.codes[part.first : end]
            if not any(codes):
                self._ledger.commit(rows, handles, lost=lost)
                outcome.take(part, range(len(rows)))
                continue
            answered = [row for row, code in enumerate(codes) if code == 0]
            later = []
            for row in (row for row, code in enumerate(codes) if code):
                error = part.reply.errors.get(part.first + row) or ServerInternalError("the server refused the row without a reason")
                if error.reason in _TRY_LATER:
                    refusals[rows.indices[row]] = error
                    later.append(row)
                    if error.reason == _LEARNER_BEHIND:
                        held[rows.transport] = part.rooms
                else:
                    self._ledger.refuse(rows, row, error)
                    outcome.errors[rows.indices[row]] = error
            self._ledger.commit(rows.select(answered), [handles[row] for row in answered], lost=lost)
            outcome.take(part, answered)
            if later:
                waiting.append(rows.select(later))
        return waiting, refusals, held

    def _still_waiting(
        self, waiting: list[Rows], refusals: dict[int, PolicyServerError], outcome: Outcome, deadline: float, timeout_s: float
    ) -> list[Rows]:
        """Find the rows that are worth sending again; the others get their errors."""
        self._router.check()
        if time.monotonic() < deadline:
            return self._drop_refused(self._drop_lost(waiting, outcome), outcome)
        for rows in waiting:
            self._ledger.abandon([episode.id for episode in rows.episodes])
            for row, index in enumerate(rows.indices):
                refusal = refusals.get(index)
                if refusal is not None and refusal.reason != _LEARNER_BEHIND:  # it changed nothing: the episode may do something else
                    self._ledger.refuse(rows, row, refusal)
                    outcome.errors[index] = refusal
                else:  # it may have been applied: it stays frozen
                    outcome.errors[index] = rows.transport.timeout(timeout_s)
        return []

    def _drop_lost(self, waiting: Sequence[Rows], outcome: Outcome) -> list[Rows]:
        """Sort out the rows of episodes that the ledger has closed meanwhile."""
        left = []
        for rows in waiting:
            lost = {row for row, episode in enumerate(rows.episodes) if not self._ledger.is_open(episode)}
            for row in lost:
                outcome.errors[rows.indices[row]] = self._ledger.absent(rows.episodes[row].id)
            if lost:
                rows = rows.select([row for row in range(len(rows)) if row not in lost])
            if len(rows):
                left.append(rows)
        return left

    def _drop_refused(self, waiting: Sequence[Rows], outcome: Outcome) -> list[Rows]:
        """Sort out the rows for runners that this client cannot talk to any more. They may have been applied: they stay frozen."""
        left = []
        for rows in waiting:
            refusal = rows.transport.refusal
            if refusal is None:
                left.append(rows)
                continue
            self._ledger.abandon([episode.id for episode in rows.episodes])
            outcome.errors.update((index, copy.copy(refusal)) for index in rows.indices)
        return left
