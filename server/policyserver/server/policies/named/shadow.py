"""A policy that is asked what the one that learns is asked, and whose actions are recorded and never sent."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from policyserver.common.server_stats import PolicyFigures
from policyserver.server.policies.named.unsent_actions import ComputedActions, UnsentActions
from policyserver.server.policies.policy import LIVE, Array, Mask, StepResult, StepRows
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from policyserver.server.processes.shadow_actions import ShadowActions

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Actions that wait to be recorded."""
LOG_INTERVAL_S = 60.0
"""Least time from one line of the log about failures to the next."""


@dataclass(slots=True)
class _Computed:
    """What a shadow decided in a pass that is not committed."""

    places: npt.NDArray[np.int64]
    rows: StepRows
    state: list[Array]
    executed: Array
    sent: Array
    """What the policy that learns decided, [n, ...]; of a row whose answer is held back it may decide anew."""
    asked: Mask
    """Which of these rows the policy that learns decided itself, so that they can be compared."""
    version: int

    def actions(self, slots: npt.NDArray[np.int64], which: Mask) -> ComputedActions:
        """Return those of some rows, whose episodes have these slots."""
        versions = np.full(np.count_nonzero(which), self.version, np.int64)
        return ComputedActions(slots[which], self.rows.drawn_by.select(which), self.executed[which], versions)


class Shadow:
    """Keeps a recurrent state of its own for each episode, by slot. Owned by the loop thread.

    An episode begins with the initial state, also if its first row could not be decided, and goes on with it where another policy has come
    under the name. After a row that could not be decided it goes on with the state before that row.

    Overflow policy of what waits to be recorded: the oldest are dropped and counted. A shadow that fails is left out of the pass, which is
    counted, and logged at most once a minute.
    """

    def __init__(self, name: str, initial_state: list[Array]) -> None:
        self.name = name
        self._initial_state = initial_state
        self._states = [np.empty((0, *leaf.shape), leaf.dtype) for leaf in initial_state]
        self._policy_number: int | None = None
        self._computed: _Computed | None = None
        self._unsent = UnsentActions()
        self._waiting: deque[ShadowActions] = deque()
        self._waiting_count = 0
        self._episodes: npt.NDArray[np.object_] = np.empty(0, np.object_)
        """Client and id of each episode, by slot."""
        self._logged_s = -math.inf
        self._unlogged = 0
        self.actions = self.agreed = self.missing = self.failed = 0

    def decide(self, number: int, policy: VectorizedPolicy, rows: StepRows, decided: StepResult) -> None:
        """Compute the rows that the policy that learns decided, by the policy that has this number; nothing changes before `commit`."""
        self._computed = None
        if number != self._policy_number:  # the states are another net's
            self._policy_number, self._states = number, [column[:0] for column in self._states]
        asks = ~rows.ends
        ours = asks if rows.policies is None else asks & (rows.policies == LIVE)
        places = np.flatnonzero(ours)
        if not places.size:
            return
        part = rows.of_one_policy(places)
        part = replace(part, state=self._states_of(part), given=part.given[:0], given_actions=part.given_actions[:0])
        try:
            answer = policy.decide(part)
        except Exception:
            self._note_failure(len(places))
            return
        sent = decided.executed[ours[asks]]
        asked = np.ones(len(places), np.bool_)
        asked[np.searchsorted(places, rows.given[ours[rows.given]])] = False
        self._computed = _Computed(places, part, answer.state, answer.executed, sent, asked, policy.weights_seq_no)

    def commit(self, rows: StepRows, kept: Mask) -> None:
        """Keep the states and the actions of the rows that were kept; of those held back the actions wait for `note_answers`."""
        self._note_episodes(rows, kept)
        self._begin_anew(rows.slots[kept & rows.is_new])
        self._unsent.forget(rows.slots[kept])
        computed, self._computed = self._computed, None
        if computed is None:
            return
        stay, slots = kept[computed.places], rows.slots[computed.places]
        self._make_room(int(slots[stay].max(initial=-1)) + 1)
        for column, leaf in zip(self._states, computed.state, strict=True):
            column[slots[stay]] = leaf[stay]
        compared = stay & computed.asked
        if rows.held is not None and (unsent := compared & rows.held[computed.places]).any():
            self._unsent.keep(computed.actions(slots, unsent))
            compared &= ~unsent
        self._note(computed.actions(slots, compared), computed.sent[compared], computed.version)

    def note_answers(self, slots: npt.NDArray[np.int64], sent: Array) -> None:
        """Keep the actions beside those that were sent now, to questions that had waited: of n episodes, [n, ...]."""
        actions = self._unsent.take(slots)
        if actions is not None:
            sent = sent[np.isin(slots, actions.slots)]
            for version in np.unique(actions.versions).tolist():
                of = actions.versions == version
                self._note(actions.select(of), sent[of], version)

    def _note(self, actions: ComputedActions, sent: Array, version: int) -> None:
        """Count actions, and have them wait to be recorded."""
        if not len(sent):
            return
        same = (sent == actions.actions).all(axis=tuple(range(1, sent.ndim)))
        self.actions += len(sent)
        self.agreed += int(np.count_nonzero(same))
        episodes = self._episodes[actions.slots].tolist()
        self._waiting.append(ShadowActions(actions.by.keys, episodes, actions.by.steps, sent, actions.actions, version))
        self._waiting_count += len(sent)
        while self._waiting_count > MOST_WAITING and len(self._waiting) > 1:
            dropped = len(self._waiting.popleft().steps)
            self._waiting_count -= dropped
            self.missing += dropped

    def take(self) -> list[ShadowActions]:
        """Return the actions since the last call, but for those that were dropped."""
        taken, self._waiting, self._waiting_count = list(self._waiting), deque(), 0
        return taken

    def figures(self) -> list[PolicyFigures]:
        """Return how many actions it computed, how many of them were sent, too, and what is missing."""
        if not self.actions and not self.failed:
            return []
        agreement = self.agreed / self.actions if self.actions else None
        figures = PolicyFigures(
            f"{self.name} shadow", actions=self.actions, agreement=agreement, rows_failed=self.failed, actions_unrecorded=self.missing
        )
        return [figures]

    def _note_failure(self, rows: int) -> None:
        """Count rows that it could not decide, while that error is handled, and say so if the log has not been told for a while."""
        self.failed += rows
        self._unlogged += rows
        if (now_s := time.monotonic()) >= self._logged_s + LOG_INTERVAL_S:
            text = "the shadow %s could not decide %d rows, %d since it began; it is left out where it can't"
            logger.exception(text, self.name, self._unlogged, self.failed)
            self._logged_s, self._unlogged = now_s, 0

    def _note_episodes(self, rows: StepRows, kept: Mask) -> None:
        """Know the episodes that begin by their slots."""
        for place, episode in rows.begun.items():
            if kept[place]:
                if (slot := int(rows.slots[place])) >= len(self._episodes):
                    grown = np.empty(max(2 * len(self._episodes), slot + 1), np.object_)
                    grown[: len(self._episodes)] = self._episodes
                    self._episodes = grown
                self._episodes[slot] = episode

    def _states_of(self, rows: StepRows) -> list[Array]:
        if not self._states:
            return []
        slots = np.where(rows.is_new, 0, rows.slots)
        self._make_room(int(slots.max(initial=-1)) + 1)
        gathered = [column[slots] for column in self._states]
        for leaf, initial in zip(gathered, self._initial_state, strict=True):
            leaf[rows.is_new] = initial
        return gathered

    def _begin_anew(self, slots: npt.NDArray[np.int64]) -> None:
        """Leave the states of the episodes that had these slots."""
        for column, initial in zip(self._states, self._initial_state, strict=True):
            column[slots[slots < len(column)]] = initial

    def _make_room(self, slots: int) -> None:
        """Have a row for each slot, those that are new at the beginning of an episode."""
        for number, (column, initial) in enumerate(zip(self._states, self._initial_state, strict=True)):
            if len(column) < slots:
                self._states[number] = grown = np.empty((max(slots, 2 * len(column)), *initial.shape), initial.dtype)
                grown[: len(column)] = column
                grown[len(column) :] = initial
