"""A policy that is asked what the one that learns is asked, and whose actions are recorded and never sent."""

from __future__ import annotations

import logging
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

    Overflow policy of what waits to be recorded: the oldest are dropped and counted. A shadow that fails is left out of the pass.
    """

    def __init__(self, name: str, initial_state: list[Array]) -> None:
        self.name = name
        self._initial_state = initial_state
        self._states = [np.empty((0, *leaf.shape), leaf.dtype) for leaf in initial_state]
        self._computed: _Computed | None = None
        self._waiting: deque[ShadowActions] = deque()
        self._waiting_count = 0
        self._has_failed = False
        self.actions = self.agreed = self.missing = 0

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
            if not self._has_failed:
                logger.exception("the shadow %s could not decide %d rows; it is left out where it can't", self.name, len(places))
            self._has_failed = True
            return
        sent = decided.executed[ours[asks]]
        asked = np.ones(len(places), np.bool_)
        asked[np.searchsorted(places, rows.given[ours[rows.given]])] = False
        self._computed = _Computed(places, part, answer.state, answer.executed, sent, asked, policy.weights_seq_no)

    def commit(self, rows: StepRows, kept: Mask) -> None:
        """Keep the states and the actions of the rows that were kept."""
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
        self._waiting.append(ShadowActions(by.keys, by.steps, sent, shadow, computed.version))
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
        """Return how many actions it computed, and how many of them were sent, too."""
        if not self.actions:
            return []
        return [PolicyFigures(f"{self.name} shadow", actions=self.actions, agreement=self.agreed / self.actions)]

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
