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
    asked: Mask
    """Which of these rows the policy that learns decided itself, so that they can be compared."""
    version: int


class Shadow:
    """Keeps a recurrent state of its own for each episode, by slot. Owned by the loop thread.

    Overflow policy of what waits to be recorded: the oldest are dropped and counted. A shadow that fails is left out of the pass, which is
    counted, and logged at most once a minute.
    """

    def __init__(self, name: str, initial_state: list[Array]) -> None:
        self.name = name
        self._initial_state = initial_state
        self._states = [np.empty((0, *leaf.shape), leaf.dtype) for leaf in initial_state]
        self._computed: _Computed | None = None
        self._waiting: deque[ShadowActions] = deque()
        self._waiting_count = 0
        self._episodes: npt.NDArray[np.object_] = np.empty(0, np.object_)
        """Client and id of each episode, by slot."""
        self._logged_s = -math.inf
        self._unlogged = 0
        self.actions = self.agreed = self.missing = self.failed = 0

    def decide(self, policy: VectorizedPolicy, rows: StepRows, decided: StepResult) -> None:
        """Compute the rows that the policy that learns decided; nothing changes before `commit`."""
        self._computed = None
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
        """Keep the states and the actions of the rows that were kept."""
        self._note_episodes(rows, kept)
        computed, self._computed = self._computed, None
        if computed is None:
            return
        stay = kept[computed.places]
        slots = rows.slots[computed.places][stay]
        self._make_room(int(slots.max(initial=-1)) + 1)
        for column, leaf in zip(self._states, computed.state, strict=True):
            column[slots] = leaf[stay]
        compared = stay & computed.asked
        sent, shadow, by = computed.sent[compared], computed.executed[compared], computed.rows.drawn_by.select(compared)
        same = (sent == shadow).reshape(len(sent), -1).all(axis=1)
        self.actions += len(sent)
        self.agreed += int(np.count_nonzero(same))
        episodes = self._episodes[rows.slots[computed.places][compared]].tolist()
        self._waiting.append(ShadowActions(by.keys, episodes, by.steps, sent, shadow, computed.version))
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

    def _make_room(self, slots: int) -> None:
        """Have a row for each slot, those that are new at the beginning of an episode."""
        for number, (column, initial) in enumerate(zip(self._states, self._initial_state, strict=True)):
            if len(column) < slots:
                self._states[number] = grown = np.empty((max(slots, 2 * len(column)), *initial.shape), initial.dtype)
                grown[: len(column)] = column
                grown[len(column) :] = initial
