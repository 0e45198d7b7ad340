"""What other algorithms than PPO learn from is RLlib's, too, through their learner pipelines and their replay buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from tests.parity.comparison import check_batches, check_episodes, check_inputs, check_parity, learner_batch, learner_of
from tests.parity.harness import Recording, Setting, array_policy, cases, record, replay

pytestmark = pytest.mark.long

spaces = gym.spaces

NESTED = spaces.Dict({"b": spaces.Box(-1.0, 1.0, (3,)), "a": spaces.Discrete(3)})
BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 5.0], np.float32))
LSTM = {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}
SMALL = {"fcnet_hiddens": [16]}

ON_POLICY: dict[str, Setting] = {
    "APPO": Setting(algorithm="APPO"),
    "APPO, lstm": Setting(algorithm="APPO", model={**LSTM, "vf_share_layers": True}),
    "APPO, box": Setting(algorithm="APPO", action_space=BOX, steps=(9, 9)),
    "IMPALA": Setting(algorithm="IMPALA"),
    "IMPALA, flatten": Setting(NESTED, algorithm="IMPALA", connectors=lambda: [FlattenObservations()]),
    "IMPALA, lstm": Setting(algorithm="IMPALA", model={**LSTM, "vf_share_layers": False}),
}
REPLAYED: dict[str, Setting] = {
    "DQN": Setting(algorithm="DQN", model=SMALL),
    "DQN, flatten": Setting(NESTED, algorithm="DQN", model=SMALL, connectors=lambda: [FlattenObservations()]),
    "DQN, lstm": Setting(algorithm="DQN", model=LSTM, num_envs=1),
    "SAC": Setting(algorithm="SAC", action_space=BOX, model=SMALL, steps=(9, 9)),
    "SAC, discrete": Setting(algorithm="SAC", model=SMALL),
    "SAC, filter": Setting(algorithm="SAC", action_space=BOX, model=SMALL, steps=(9, 9), connectors=lambda: [MeanStdFilter()]),
}


def _draws(setting: Setting) -> bool:
    """Whether our policy draws the actions itself: a given Box action has no counterpart of the net's outside of the box."""
    return isinstance(setting.action_space, spaces.Box)


@pytest.mark.parametrize("name", cases(ON_POLICY, "APPO, lstm"))
def test_the_batches_of_on_policy_algorithms_are_rllibs(name: str) -> None:
    recording = record(ON_POLICY[name])
    check_parity(recording, replay(recording, array_policy(recording), given=not _draws(recording.setting)))


@pytest.mark.parametrize("name", cases(REPLAYED, "DQN, flatten", "SAC, filter"))
def test_the_batches_of_replayed_episodes_are_rllibs(name: str) -> None:
    recording = record(REPLAYED[name])
    tolerance = 1e-5 if "filter" in name else 1e-6
    done = replay(recording, array_policy(recording), given=not _draws(recording.setting))
    check_inputs(recording, done, tolerance)
    ours, theirs = check_episodes(recording, done, tolerance=tolerance)
    learner = learner_of(recording)
    for n_step in (1,) if recording.runner.module.is_stateful() else (1, 3):
        own, their = (learner_batch(learner, _sampled(recording, episodes, n_step)) for episodes in (ours, theirs))
        assert len(own["rewards"]) > 0
        check_batches(own, their, tolerance)


def _sampled(recording: Recording, episodes: Sequence[SingleAgentEpisode], n_step: int) -> list[Any]:
    """Draw from a replay buffer as DQN and SAC do, the same places every time."""
    buffer = EpisodeReplayBuffer(capacity=10_000)
    buffer.rng = np.random.default_rng(5)
    buffer.add(list(episodes))
    stateful = bool(recording.runner.module.is_stateful())
    sampled: list[Any] = buffer.sample(
        num_items=64,
        n_step=n_step,
        batch_length_T=int(recording.setting.model.get("max_seq_len", 20)) * stateful,
        lookback=int(stateful),
        sample_episodes=True,
    )
    return sampled


@pytest.mark.slow
def test_segments_of_long_episodes_can_be_replayed() -> None:
    setting = replace(REPLAYED["DQN, lstm"], steps=(30, 60))
    recording = record(setting)
    ours, _ = check_episodes(recording, replay(recording, array_policy(recording), segment_steps=8), segment_steps=8)
    batch = learner_batch(learner_of(recording), _sampled(recording, ours, 1))
    assert len(batch["rewards"]) > 0
