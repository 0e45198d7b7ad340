"""Actions are recorded and executed as by RLlib's env runner: drawn from the same random numbers, or given by the client."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from tests.parity.comparison import check_parity
from tests.parity.harness import Setting, array_policy, cases, record, replay

pytestmark = pytest.mark.long

spaces = gym.spaces

LOPSIDED = spaces.Box(np.array([-0.5, 0.0, -3.0], np.float32), np.array([0.5, 10.0, 1.0], np.float32))
OPEN = spaces.Box(-np.inf, np.inf, (2,), np.float32)
DRAWN: dict[str, Setting] = {
    "multi-discrete": Setting(action_space=spaces.MultiDiscrete([3, 2, 4])),
    "box, squashed": Setting(action_space=LOPSIDED),
    "box, clipped": Setting(action_space=LOPSIDED, environment={"normalize_actions": False, "clip_actions": True}),
    "box, unbounded": Setting(action_space=OPEN),
    "box, unbounded, as it is": Setting(action_space=OPEN, environment={"normalize_actions": False, "clip_actions": False}),
    "box, float64": Setting(action_space=spaces.Box(-2.0, 3.0, (2,), np.float64)),
    "box, lstm": Setting(action_space=LOPSIDED, model={"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}),
}


@pytest.mark.parametrize("name", cases(DRAWN, "multi-discrete", "box, squashed", "box, clipped"))
def test_drawn_actions_are_recorded_and_executed_alike(name: str) -> None:
    """Episodes of equal length draw for all rows of a turn or for none, so that the random numbers fall on the same rows."""
    recording = record(replace(DRAWN[name], steps=(9, 9)))
    done = replay(recording, array_policy(recording), given=False)
    check_parity(recording, done)
    outside = 0
    for turn, executed in zip(recording.turns, done.executed, strict=True):
        for their, own in zip(turn.actions or (), executed, strict=False):
            if own is not None:
                assert np.asarray(own).dtype == recording.setting.action_space.dtype
                np.testing.assert_allclose(own, their, rtol=1e-6, atol=1e-6)
    if "squashed" in name or "clipped" in name:
        for episode in recording.episodes().values():
            actions = np.asarray(episode.get_actions())
            outside += int((np.abs(actions) > 1).sum())
        assert outside > 100, "expected actions of the net's that the environment never gets"


@pytest.mark.parametrize("action_space", [spaces.Discrete(4), spaces.MultiDiscrete([3, 2, 4]), OPEN], ids=str)
def test_given_actions_have_the_log_probabilities_that_rllib_drew_them_with(action_space: gym.Space[object]) -> None:
    recording = record(Setting(action_space=action_space))
    check_parity(recording, replay(recording, array_policy(recording), given=True))
