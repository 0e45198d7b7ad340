"""Rows of random episodes, given to RLlib's connectors one by one and to array code in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import EnvToModulePipeline, MeanStdFilter
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policyserver.common.spaces import flatten, leaves
from policyserver.server.policies.policy import DrawKeys, StepRows

Array = npt.NDArray[Any]

ACTION: gym.spaces.Discrete[np.int64] = gym.spaces.Discrete(3)


@dataclass
class OneRow:
    """One row and what RLlib's connectors made of it."""

    observation: Any
    is_new: bool
    training: bool = True
    reward: float = 0.0
    action: int = 0
    written: Any = None


def pipeline_of(space: gym.Space[Any], *pieces: ConnectorV2, action_space: gym.Space[Any] = ACTION) -> EnvToModulePipeline:
    return EnvToModulePipeline(input_observation_space=space, input_action_space=action_space, connectors=list(pieces))


class StockRows:
    """Open episodes of RLlib's, fed row by row."""

    def __init__(self, pipeline: EnvToModulePipeline, random: np.random.Generator, observe: Any, *, untrained_share: float = 0.0) -> None:
        self.pipeline, self._random, self._observe = pipeline, random, observe
        self._untrained_share = untrained_share
        self._open: list[tuple[SingleAgentEpisode, bool]] = []

    def batches(self, number: int, most_rows: int) -> Iterator[list[OneRow]]:
        for _ in range(number):
            yield self.batch(int(self._random.integers(1, most_rows + 1)))

    def batch(self, rows: int) -> list[OneRow]:
        """Make rows of different episodes in random order, and have RLlib's connectors write them."""
        self._random.shuffle(self._open)
        made = []
        for index in range(rows):
            if index >= len(self._open) or self._random.random() < 0.2:
                self._open.insert(index, self._new_episode())
                row = OneRow(self._observe(), True)
                self._open[index][0].add_env_reset(row.observation)
            else:
                row = OneRow(self._observe(), False, reward=float(self._random.normal()), action=int(self._random.integers(int(ACTION.n))))
                self._open[index][0].add_env_step(row.observation, np.int64(row.action), row.reward)
            episode, row.training = self._open[index]
            row.written = self._write(episode, row.training)
            made.append(row)
        return made

    def _new_episode(self) -> tuple[SingleAgentEpisode, bool]:
        space = self.pipeline.input_observation_space
        return SingleAgentEpisode(observation_space=space, action_space=ACTION), bool(self._random.random() >= self._untrained_share)

    def _write(self, episode: SingleAgentEpisode, training: bool) -> Array:
        filters = [piece for piece in self.pipeline.connectors if isinstance(piece, MeanStdFilter) and piece._update_stats]
        for piece in filters:
            piece._update_stats = training
        try:
            self.pipeline(rl_module=None, batch={}, episodes=[episode], explore=True, shared_data={})
        finally:
            for piece in filters:
                piece._update_stats = True
        return np.asarray(episode.get_observations(-1))


def step_rows(space: gym.Space[Any], rows: Sequence[OneRow]) -> StepRows:
    """Put rows in the form that a policy gets."""
    count = len(rows)
    parts = [flatten(space, row.observation) for row in rows]
    return StepRows(
        slots=np.zeros(count, np.int64),
        is_new=np.array([row.is_new for row in rows]),
        ends=np.zeros(count, np.bool_),
        terminated=np.zeros(count, np.bool_),
        training=np.array([row.training for row in rows]),
        rewards=np.array([row.reward for row in rows]),
        observations=[np.stack([part[index] for part in parts]) for index in range(len(leaves(space)))],
        infos={},
        actions=np.array([row.action for row in rows]),
        state=[],
        given=np.empty(0, np.int64),
        given_actions=np.empty(0, np.int64),
        drawn_by=DrawKeys(np.zeros(count, np.uint64), np.zeros(count, np.int64)),
    )


def written(rows: Sequence[OneRow]) -> Array:
    """Return what RLlib's connectors wrote, which ends in one array."""
    return np.stack([row.written for row in rows])
