"""Gives rows of episodes to a policy, keeping for each episode what the episode table would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.common.spaces import flatten, leaves
from policyserver.server.policies.policy import DrawKeys, Policy, StepResult, StepRows

Array = npt.NDArray[Any]


@dataclass
class Move:
    """One row of an episode."""

    slot: int
    observation: Any
    new: bool = False
    reward: float = 0.0
    end: str = ""
    """"terminated" or "truncated" in the last row."""
    training: bool = True
    info: dict[str, Any] | None = None
    given: Any = None
    greedy: bool = False


class PolicyPlayer:
    """Sends moves to a policy."""

    def __init__(self, policy: Policy, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.policy, self.space = policy, observation_space
        (self._action,) = leaves(action_space, "action")
        self.executed: dict[int, Any] = {}
        self._state: dict[int, list[Array]] = {}

    def rows(self, moves: Sequence[Move]) -> StepRows:
        parts = [flatten(self.space, move.observation) for move in moves]
        states = [self.policy.initial_state if move.new else self._state[move.slot] for move in moves]
        zero = np.zeros(self._action.shape, self._action.dtype)
        given = [place for place, move in enumerate(moves) if move.given is not None]
        return StepRows(
            slots=np.array([-1 if move.new else move.slot for move in moves], np.int64),
            is_new=np.array([move.new for move in moves]),
            ends=np.array([bool(move.end) for move in moves]),
            terminated=np.array([move.end == "terminated" for move in moves]),
            training=np.array([move.training for move in moves]),
            rewards=np.array([move.reward for move in moves], np.float64),
            observations=[np.stack(leaf) for leaf in zip(*parts, strict=True)],
            infos={place: move.info for place, move in enumerate(moves) if move.info is not None},
            actions=np.stack([zero if move.new else self.executed[move.slot] for move in moves]),
            state=[np.stack(leaf) for leaf in zip(*states, strict=True)],
            given=np.array(given, np.int64),
            given_actions=np.array([moves[place].given for place in given], self._action.dtype).reshape(-1, *self._action.shape),
            drawn_by=DrawKeys(np.array([move.slot for move in moves], np.uint64), np.zeros(len(moves), np.int64)),
            greedy=np.array([move.greedy for move in moves]) if any(move.greedy for move in moves) else None,
        )

    def send(self, *moves: Move, kept: Sequence[bool] | None = None) -> StepResult:
        """Have the policy decide the moves, and commit them."""
        rows = self.rows(moves)
        decided = self.policy.decide(rows)
        mask = np.ones(len(moves), np.bool_) if kept is None else np.array(kept)
        rows.slots = np.array([move.slot for move in moves], np.int64)
        self.policy.commit(rows, decided, mask)
        asking = [place for place, move in enumerate(moves) if not move.end]
        for number, place in enumerate(asking):
            if mask[place]:
                self.executed[moves[place].slot] = decided.executed[number]
                self._state[moves[place].slot] = [leaf[number] for leaf in decided.state]
        return decided
