"""What the learner gets: runs of consecutive steps of one episode, moved between processes as a few large arrays.

A segment is the unit of hand-off and of dropping. It begins with the last steps of the segment before it (its look-back), from which a
recurrent learner takes the state it starts from and a frame-stacking one its earlier frames. Segments of one `sample()` that follow each
other in their episode arrive joined: at each end of what it is given the learner must make do with an estimate of what is still to come,
so the fewer ends, the better it learns. What was joined has an id of its own, so that a segment that was dropped, or that comes later,
leaves no gap that RLlib's replay buffers would trip over.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from policyserver.common.spaces import Array, unflatten_batch
from policyserver.server.policies.policy import StepLayout

BEHIND_FROM = (0, 1, 2, 4, 8, 16)
"""Least number of policy versions in each class of steps, by how many lie between acting and hand-off."""


@dataclass(slots=True)
class SegmentBlock:
    """Columns of n segments, each padded to the length of the longest, T steps.

    The first L = `layout.lookback` rows of the step axis are the look-back, the next `length` ones the segment's own steps, and there is
    one row more of observations: what the last action led to. If `t_started` is less than L, only as many of the look-back's last rows
    have a meaning. Pickling a block costs one buffer per column whatever n is; the episodes are built where it is read.
    """

    layout: StepLayout
    """What a step consists of."""
    episodes: npt.NDArray[np.int64]
    """Number of each segment's episode among all that the serving process recorded, int64[n]."""
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
    steps_behind: npt.NDArray[np.int64]
    """Steps by that difference: how many are in each class of `BEHIND_FROM`, int64[6]."""

    @property
    def steps(self) -> int:
        """Steps of all segments."""
        return int(self.lengths.sum())


@dataclass(slots=True)
class _Run:
    """Segments that follow each other, by their place in their blocks."""

    parts: list[tuple[SegmentBlock, int]]
    steps: int
    end: int
    """Number of the step after the last one, within its episode; -1 if the episode has ended."""

    def is_followed_by(self, block: SegmentBlock, index: int) -> bool:
        """Tell whether a segment of the episode goes on where this ends, with the recurrent states where a learner will look for them."""
        return self.end == block.t_started[index] and not (block.states and self.steps % block.layout.state_every)

    def append(self, block: SegmentBlock, index: int) -> None:
        self.parts.append((block, index))
        self.steps += int(block.lengths[index])
        is_last = block.terminated[index] or block.truncated[index]
        self.end = -1 if is_last else int(block.t_started[index] + block.lengths[index])


def episodes_of(blocks: list[SegmentBlock], id_prefix: str | None = None) -> list[SingleAgentEpisode]:
    """Build one RLlib episode of each run of segments that follow each other, in the order in which the runs begin.

    The arrays of an episode of one segment are views of the block's. Ids begin with `id_prefix`, or with a fresh one.
    """
    runs: list[_Run] = []
    newest: dict[int, _Run] = {}
    for block in blocks:
        for index, episode in enumerate(block.episodes.tolist()):
            run = newest.get(episode)
            if run is None or not run.is_followed_by(block, index):
                run = newest[episode] = _Run([], 0, 0)
                runs.append(run)
            run.append(block, index)
    prefix = id_prefix or uuid.uuid4().hex
    return [_episode(run.parts, f"{prefix}-{number}") for number, run in enumerate(runs)]


def _episode(parts: list[tuple[SegmentBlock, int]], id_: str) -> SingleAgentEpisode:
    """Build an episode of segments that follow each other."""
    (first, first_index), (last, last_index) = parts[0], parts[-1]
    layout = first.layout
    lookback = min(layout.lookback, int(first.t_started[first_index]))
    rows = [range(layout.lookback, layout.lookback + int(block.lengths[index])) for block, index in parts]
    rows[0] = range(layout.lookback - lookback, rows[0].stop)
    and_after = [*rows[:-1], range(rows[-1].start, rows[-1].stop + 1)]

    blocks, indices = [block for block, _ in parts], [index for _, index in parts]

    def joined(columns: Iterable[Array], rows: list[range] = rows) -> Array:
        pieces = [column[index, of.start : of.stop] for column, index, of in zip(columns, indices, rows, strict=True)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def buffer(columns: Iterable[Array], space: gym.Space[Any] | None = None) -> InfiniteLookbackBuffer:
        return InfiniteLookbackBuffer(joined(columns), lookback, space)

    outputs = {name: buffer(block.outputs[name] for block in blocks) for name in first.outputs}
    if first.states:
        after = [
            np.concatenate([_state_after(block, index, of, leaf) for (block, index), of in zip(parts, rows, strict=True)])
            for leaf in range(len(first.states))
        ]
        outputs[Columns.STATE_OUT] = _tree_buffer(tree.unflatten_as(layout.initial_state, after), lookback)
    observations = [joined((block.observations[leaf] for block in blocks), and_after) for leaf in range(len(first.observations))]
    infos: list[dict[str, Any]] = [
        block.infos.get((index, row), {}) for (block, index), of in zip(parts, and_after, strict=True) for row in of
    ]
    return SingleAgentEpisode(
        id_=id_,
        observations=_tree_buffer(unflatten_batch(layout.observation_space, observations), lookback, layout.observation_space),
        observation_space=layout.observation_space,
        actions=buffer((block.actions for block in blocks), layout.action_space),
        action_space=layout.action_space,
        rewards=buffer(block.rewards for block in blocks),
        infos=InfiniteLookbackBuffer(infos, lookback),
        terminated=bool(last.terminated[last_index]),
        truncated=bool(last.truncated[last_index]),
        t_started=int(first.t_started[first_index]),
        extra_model_outputs=outputs,
        len_lookback_buffer=lookback,
    )


def _state_after(block: SegmentBlock, index: int, rows: range, leaf: int) -> Array:
    """Return the state after each of a segment's steps, zeros where none was kept, which is where no learner reads it."""
    states, every = block.states[leaf], block.layout.state_every
    before_first = block.layout.lookback - 1  # the state before step 1 is that after the look-back
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
