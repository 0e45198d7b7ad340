"""What the learner gets: runs of consecutive steps of one episode, moved between processes as a few large arrays.

A segment is the unit of hand-off and of dropping. Each has an id of its own, so that a dropped one leaves no gap that RLlib's replay
buffers would trip over, and begins with the last steps of the segment before it (its look-back), from which a recurrent learner takes the
state it starts from and a frame-stacking one its earlier frames.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from policyserver.spaces import unflatten_batch

from ..policies.policy import StepLayout

Array = npt.NDArray[Any]


@dataclass(slots=True)
class SegmentBlock:
    """Columns of n segments, each padded to the length of the longest, T steps.

    The first L = `layout.lookback` rows of the step axis are the look-back, the next `length` ones the segment's own steps, and there is
    one row more of observations: what the last action led to. If `t_started` is less than L, only as many of the look-back's last rows
    have a meaning. Pickling a block costs one buffer per column whatever n is; the episodes are built where it is read.
    """

    layout: StepLayout
    """What a step consists of."""
    lengths: npt.NDArray[np.int32]
    """Steps of each segment, int32[n]."""
    t_started: npt.NDArray[np.int64]
    """Number of each segment's first step within its episode, int64[n]."""
    terminated: npt.NDArray[np.bool_]
    """Whether the segment's last observation ended the episode, bool[n]."""
    truncated: npt.NDArray[np.bool_]
    """Whether the episode was cut there, bool[n]."""
    observations: list[Array]
    """One array per leaf of the recorded observations, [n, L + T + 1, ...]."""
    actions: Array
    """[n, L + T, *action shape], as the RLModule gives them."""
    rewards: npt.NDArray[np.float32]
    """float32[n, L + T]."""
    outputs: dict[str, Array]
    """What the net gave for each step, by RLlib's column name, [n, L + T, ...]."""
    states: list[Array]
    """Recurrent states where a learner reads them, leaf by leaf, [n, K, ...]: before the segment's first step, and before each further
    `layout.state_every`-th one. Empty for a stateless net."""
    infos: dict[tuple[int, int], dict[str, Any]]
    """Infos by (segment, observation row)."""
    versions_behind: int
    """Sum over all steps of (policy version served at hand-off - version that acted)."""
    whole_episodes: bool = False
    """Whether the segments make up whole episodes: those with `t_started > 0` go on with the one before them."""

    @property
    def steps(self) -> int:
        """Steps of all segments."""
        return int(self.lengths.sum())

    def episodes(self, id_prefix: str | None = None) -> list[SingleAgentEpisode]:
        """Build one RLlib episode per segment, whose arrays are views of the block's, or one per whole episode."""
        prefix = id_prefix or uuid.uuid4().hex
        first = np.flatnonzero(self.t_started == 0).tolist() if self.whole_episodes else range(len(self.lengths))
        return [self._episode(range(*ends), f"{prefix}-{ends[0]}") for ends in pairwise((*first, len(self.lengths)))]

    def _episode(self, parts: range, id_: str) -> SingleAgentEpisode:
        layout = self.layout
        lookback = min(layout.lookback, int(self.t_started[parts[0]]))

        def rows(index: int, more: int = 0) -> range:
            first = layout.lookback - (lookback if index == parts[0] else 0)
            return range(first, layout.lookback + int(self.lengths[index]) + (more if index == parts[-1] else 0))

        def cut(column: Array, more: int = 0) -> Array:
            pieces = [column[index, rows(index, more).start : rows(index, more).stop] for index in parts]
            return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

        def buffer(column: Array, space: gym.Space[Any] | None = None) -> InfiniteLookbackBuffer:
            return InfiniteLookbackBuffer(cut(column), lookback, space)

        outputs = {name: buffer(column) for name, column in self.outputs.items()}
        if self.states:
            after = [np.concatenate([self._state_after(index, rows(index), leaf) for index in parts]) for leaf in self.states]
            outputs[Columns.STATE_OUT] = _tree_buffer(tree.unflatten_as(layout.initial_state, after), lookback)
        observations = unflatten_batch(layout.observation_space, [cut(leaf, more=1) for leaf in self.observations])
        infos: list[dict[str, Any]] = [self.infos.get((index, row), {}) for index in parts for row in rows(index, more=1)]
        return SingleAgentEpisode(
            id_=id_,
            observations=_tree_buffer(observations, lookback, layout.observation_space),
            observation_space=layout.observation_space,
            actions=buffer(self.actions, layout.action_space),
            action_space=layout.action_space,
            rewards=buffer(self.rewards),
            infos=InfiniteLookbackBuffer(infos, lookback),
            terminated=bool(self.terminated[parts[-1]]),
            truncated=bool(self.truncated[parts[-1]]),
            t_started=int(self.t_started[parts[0]]),
            extra_model_outputs=outputs,
            len_lookback_buffer=lookback,
        )

    def _state_after(self, index: int, rows: range, states: Array) -> Array:
        """Return the state after each of a segment's steps, zeros where none was kept: nobody reads these."""
        every, before_first = self.layout.state_every, self.layout.lookback - 1  # the state before step 1 is that after the look-back
        after = np.zeros((rows.stop, *states.shape[2:]), states.dtype)
        after[before_first::every] = states[index, : -(-(rows.stop - before_first) // every)]
        return after[rows.start :]


def _tree_buffer(data: Any, lookback: int, space: gym.Space[Any] | None = None) -> InfiniteLookbackBuffer:
    """Make a buffer of a tree of arrays; its length is that of the leaves, which a dict's `len` is not."""
    buffer = InfiniteLookbackBuffer(data, 0, space)
    buffer.lookback = lookback
    return buffer


class EpisodeList:
    """Segments on their way to another process, where they arrive as a plain list of episodes.

    RLlib's env runner returns a list of episodes from `sample()`. Pickling hundreds of them takes the serving process milliseconds of
    its interpreter; this object pickles as arrays and becomes the list when it is unpickled.
    """

    def __init__(self, blocks: list[SegmentBlock]) -> None:
        self.blocks = blocks

    def __reduce__(self) -> tuple[Callable[[list[SegmentBlock]], list[SingleAgentEpisode]], tuple[list[SegmentBlock]]]:
        return episodes_of, (self.blocks,)


def episodes_of(blocks: list[SegmentBlock]) -> list[SingleAgentEpisode]:
    """Build the episodes of several blocks."""
    return [episode for block in blocks for episode in block.episodes()]
