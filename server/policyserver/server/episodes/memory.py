"""How many episodes may be open, by the memory that each takes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import tree

from policyserver.common.spaces import leaves
from policyserver.server.config.serving_config import EpisodesConfig
from policyserver.server.policies.policy import StepLayout

logger = logging.getLogger(__name__)

_ROW_BYTES = 4 + 8  # a step's reward and policy version
_SLOT_BYTES = 128  # an episode's numbers: client, sequence, return, times, the place of its page


def episode_bytes(layout: StepLayout, segment_steps: int) -> int:
    """Return how many bytes an open episode takes: a page of steps, its newest action and its recurrent state."""
    full_steps = segment_steps + layout.carried
    rows = layout.lookback + full_steps
    observation = sum(_size(leaf.shape, leaf.dtype) for leaf in leaves(layout.observation_space, "observation"))
    action, outputs = _size(*layout.action), sum(_size(*output) for output in layout.outputs.values())
    state_leaves = [np.asarray(leaf) for leaf in tree.flatten(layout.initial_state)] if layout.initial_state is not None else []
    state = sum(leaf.nbytes for leaf in state_leaves)
    states = full_steps // layout.state_every + 1
    return (rows + 1) * observation + rows * (action + outputs + _ROW_BYTES) + states * state + action + state + _SLOT_BYTES


def most_pages(config: EpisodesConfig, layout: StepLayout, segment_steps: int) -> int:
    """Return how many pages of steps may be open, and how many may wait for the learner, by `max_open_bytes`."""
    return max(config.max_open_bytes // episode_bytes(layout, segment_steps), 1)


def most_open(config: EpisodesConfig, layout: StepLayout, segment_steps: int) -> int:
    """Return how many episodes may be open: `max_open`, or fewer if so many would take more than `max_open_bytes`."""
    most = min(config.max_open, most_pages(config, layout, segment_steps))
    if most < config.max_open:
        text = "%d bytes for each open episode: at most %d are held (episodes.max_open_bytes), not %d (episodes.max_open)"
        logger.warning(text, episode_bytes(layout, segment_steps), most, config.max_open)
    return most


def _size(shape: Iterable[int], dtype: npt.DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize
