"""Compares what RLlib's env runner and ours gave: module inputs, episodes, and the batches that the learner computes its loss of."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from tests.parity.harness import Recording, Replay
from tests.server import core_harness


def check_inputs(recording: Recording, done: Replay, tolerance: float) -> None:
    """Compare what the two modules were asked."""
    compared = 0
    for turn, ours in zip(recording.turns, done.inputs, strict=True):
        if turn.inputs is None or ours is None:
            continue
        asking = torch.from_numpy(np.flatnonzero(~turn.ends))
        theirs = tree.map_structure(lambda tensor, rows=asking: tensor[rows], turn.inputs)
        assert set(theirs) == set(ours)
        check_trees(ours, theirs, tolerance)
        compared += len(asking)
    assert compared > 100


def check_episode(ours: SingleAgentEpisode, theirs: SingleAgentEpisode, tolerance: float) -> None:
    """Compare two chunks of an episode as they arrive at the learner, their look-backs too."""
    assert (len(ours), ours.t_started, ours.is_terminated, ours.is_truncated) == (
        len(theirs),
        theirs.t_started,
        theirs.is_terminated,
        theirs.is_truncated,
    )
    for name in ("observations", "actions", "rewards"):
        own, their = getattr(ours, name), getattr(theirs, name)
        assert own.lookback == their.lookback, name
        check_trees(own.data, their.data, tolerance, exact=name == "observations")
    assert list(ours.infos.data) == list(theirs.infos.data)
    assert set(ours.extra_model_outputs) == set(theirs.extra_model_outputs)
    for name, own in ours.extra_model_outputs.items():
        if name != Columns.STATE_OUT:  # recorded where a learner reads it, see `learner_batch`
            assert own.lookback == theirs.extra_model_outputs[name].lookback, name
            check_trees(own.data, theirs.extra_model_outputs[name].data, tolerance, exact=False)


def check_trees(ours: Any, theirs: Any, tolerance: float, *, exact: bool = True) -> None:
    """Compare trees of arrays or tensors: structures, shapes, values and dtypes; if not `exact`, any width of number will do."""
    own = {path: np.asarray(leaf) for path, leaf in tree.flatten_with_path(ours)}
    their = {path: np.asarray(leaf) for path, leaf in tree.flatten_with_path(theirs)}
    assert set(own) == set(their)
    for path, leaf in their.items():
        assert own[path].shape == leaf.shape, path
        assert own[path].dtype == leaf.dtype or (not exact and own[path].dtype.kind == leaf.dtype.kind), path
        np.testing.assert_allclose(own[path], leaf, rtol=tolerance, atol=tolerance, err_msg=str(path))


def learner_of(recording: Recording) -> Any:
    """Build the learner of a setting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return recording.config.build_learner(spaces=recording.runner.get_spaces())


def learner_batch(learner: Any, episodes: Sequence[SingleAgentEpisode]) -> dict[str, Any]:
    """Return the batch that a learner computes its loss of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return core_harness.learner_batch(learner, copy.deepcopy(list(episodes)))


def check_parity(recording: Recording, done: Replay, *, tolerance: float = 1e-6, segment_steps: int = 64) -> None:
    """Compare everything: module inputs, recorded episodes, and the learner's batch of all complete episodes."""
    check_inputs(recording, done, tolerance)
    ours, theirs = check_episodes(recording, done, tolerance=tolerance, segment_steps=segment_steps)
    learner = learner_of(recording)
    check_batches(learner_batch(learner, ours), learner_batch(learner, theirs), tolerance)


def check_episodes(
    recording: Recording, done: Replay, *, tolerance: float = 1e-6, segment_steps: int = 64
) -> tuple[list[SingleAgentEpisode], list[SingleAgentEpisode]]:
    """Compare all complete episodes, segment by segment; return ours and RLlib's, in the same order."""
    theirs, ours = [], []
    for number, episode in recording.episodes().items():
        pieces = cut(episode, segment_steps, max(recording.setting.lookback, 1))
        assert len(pieces) == len(done.segments[number])
        for own, their in zip(done.segments[number], pieces, strict=True):
            check_episode(own, their, tolerance)
        theirs += pieces
        ours += done.segments[number]
    assert len(theirs) > 3
    return ours, theirs


def check_batches(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> None:
    """Compare two batches of the learner."""
    check_trees(ours, theirs, tolerance, exact=False)
    check_trees(ours[Columns.OBS], theirs[Columns.OBS], tolerance)


def cut(episode: SingleAgentEpisode, steps: int, lookback: int) -> list[SingleAgentEpisode]:
    """Cut an episode of RLlib's as our hand-off cuts: into pieces of so many steps, with a look-back."""
    return [
        episode.slice(slice(start, min(start + steps, len(episode))), len_lookback_buffer=min(lookback, start))
        for start in range(0, len(episode), steps)
    ]
