"""RLlib's env runner and ours make the same of the same episodes, whatever the model, the spaces and the connectors."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter, PrevActionsPrevRewards
from ray.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule
from ray.rllib.connectors.learner.frame_stacking import FrameStackingLearner

from tests.parity.comparison import check_batches, check_episode, check_parity, learner_batch, learner_of
from tests.parity.harness import Setting, array_policy, cases, number_of, record, replay
from tests.parity.modules import ByteImageModule, DictModule

pytestmark = pytest.mark.long

spaces = gym.spaces

LSTM = {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}
SEGMENT_STEPS = 10  # a multiple of max_seq_len, as segments of a recurrent net always are
CONVOLUTION = {
    "conv_filters": [[4, 4, 2], [8, 3, 2]],
    "conv_activation": "relu",
    "head_fcnet_hiddens": [16],
    "vf_share_layers": True,
}
FAR = spaces.Box(np.array([95.0, -1.0, 0.0, 20.0], np.float32), np.array([105.0, 1.0, 1e-3, np.inf], np.float32))
NESTED = spaces.Dict(
    {
        "z": spaces.Box(-2.0, 2.0, (2, 2), np.float64),
        "a": spaces.Tuple([spaces.Discrete(3), spaces.MultiDiscrete([2, 4]), spaces.MultiBinary(3)]),
        "m": spaces.Box(0, 255, (3,), np.uint8),
    }
)
PARTS = spaces.Dict({"position": spaces.Box(-1.0, 1.0, (3,)), "code": spaces.Discrete(5), "flags": spaces.MultiBinary(2)})
FRAME = spaces.Box(0.0, 1.0, (10, 10, 1), np.float32)


PLAIN: dict[str, Setting] = {
    "mlp": Setting(),
    "mlp with its own value net": Setting(model={"fcnet_hiddens": [16], "vf_share_layers": False}),
    "lstm": Setting(model={**LSTM, "vf_share_layers": True}),
    "lstm with its own value net": Setting(model={**LSTM, "vf_share_layers": False}),
    "convolution, float32": Setting(spaces.Box(0.0, 1.0, (10, 10, 3)), model=CONVOLUTION, steps=(1, 12)),
    "own convolution, uint8": Setting(spaces.Box(0, 255, (10, 10, 3), np.uint8), module_class=ByteImageModule, model={}, steps=(1, 12)),
    "own module on a Dict": Setting(PARTS, module_class=DictModule, model={"hidden": 12}),
    "float64 observations": Setting(spaces.Box(-1.0, 1.0, (3,), np.float64)),
    "discrete actions and one environment": Setting(num_envs=1),
}
CONNECTED: dict[str, Setting] = {
    "flatten a Discrete": Setting(spaces.Discrete(7), connectors=lambda: [FlattenObservations()]),
    "flatten a MultiDiscrete": Setting(spaces.MultiDiscrete([3, 2, 5]), connectors=lambda: [FlattenObservations()]),
    "flatten a MultiBinary": Setting(spaces.MultiBinary((2, 3)), connectors=lambda: [FlattenObservations()]),
    "flatten nested spaces": Setting(NESTED, connectors=lambda: [FlattenObservations()]),
    "flatten without a key": Setting(NESTED, connectors=lambda: [FlattenObservations(NESTED, spaces.Discrete(4), keys_to_remove=["a"])]),
    "flatten, lstm": Setting(NESTED, connectors=lambda: [FlattenObservations()], model={**LSTM, "vf_share_layers": False}),
    "previous action and reward": Setting(connectors=lambda: [PrevActionsPrevRewards(), FlattenObservations()]),
    "previous action and reward, nested spaces": Setting(NESTED, connectors=lambda: [PrevActionsPrevRewards(), FlattenObservations()]),
    "frames, float32": Setting(
        FRAME,
        connectors=lambda: [FrameStackingEnvToModule(num_frames=4)],
        learner_connectors=lambda: [FrameStackingLearner(num_frames=4)],
        model=CONVOLUTION,
        lookback=3,
        steps=(1, 12),
    ),
    "frames, own convolution, uint8": Setting(
        spaces.Box(0, 255, (10, 10, 1), np.uint8),
        connectors=lambda: [FrameStackingEnvToModule(num_frames=3)],
        learner_connectors=lambda: [FrameStackingLearner(num_frames=3)],
        module_class=ByteImageModule,
        model={},
        lookback=2,
        steps=(1, 12),
    ),
}
FILTERED: dict[str, Setting] = {
    "filter": Setting(FAR, connectors=lambda: [MeanStdFilter()]),
    "filter, lstm": Setting(FAR, connectors=lambda: [MeanStdFilter()], model={**LSTM, "vf_share_layers": True}),
    "filter without deviation": Setting(FAR, connectors=lambda: [MeanStdFilter(de_std_to_one=False, clip_by_value=5.0)]),
    "flatten and filter": Setting(NESTED, connectors=lambda: [FlattenObservations(), MeanStdFilter()]),
    "previous action and reward, flatten and filter": Setting(
        FAR, connectors=lambda: [PrevActionsPrevRewards(), FlattenObservations(), MeanStdFilter()]
    ),
    "filter and frames": Setting(
        FRAME,
        connectors=lambda: [MeanStdFilter(), FrameStackingEnvToModule(num_frames=3)],
        learner_connectors=lambda: [FrameStackingLearner(num_frames=3)],
        model=CONVOLUTION,
        lookback=2,
        steps=(1, 12),
    ),
}


QUICK = (
    "mlp",
    "lstm with its own value net",
    "own module on a Dict",
    "own convolution, uint8",
    "flatten nested spaces",
    "flatten without a key",
    "previous action and reward, nested spaces",
    "frames, float32",
    "filter",
    "filter, lstm",
    "previous action and reward, flatten and filter",
)


@pytest.mark.parametrize("name", cases([*PLAIN, *CONNECTED], *QUICK))
def test_inputs_episodes_and_batches_are_rllibs(name: str) -> None:
    setting = {**PLAIN, **CONNECTED}[name]
    recording = record(setting)
    check_parity(recording, replay(recording, array_policy(recording)))


@pytest.mark.parametrize("name", cases(FILTERED, *QUICK))
def test_filtered_inputs_episodes_and_batches_are_rllibs(name: str) -> None:
    recording = record(FILTERED[name])
    check_parity(recording, replay(recording, array_policy(recording)), tolerance=1e-5)


LONG = ["mlp", "lstm", "lstm with its own value net", "own module on a Dict", "frames, float32", "filter"]


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("name", cases(LONG, "lstm", "frames, float32"))
def test_segments_of_long_episodes_are_rllibs_fragments_and_joined_its_episodes(name: str, joined: bool) -> None:
    setting = replace({**PLAIN, **CONNECTED, **FILTERED}[name], steps=(20, 60))
    recording = record(setting, calls=(300,))
    done = replay(recording, array_policy(recording), segment_steps=SEGMENT_STEPS, joined=joined)
    check_parity(recording, done, tolerance=1e-5, segment_steps=1000 if joined else SEGMENT_STEPS)


@pytest.mark.parametrize("name", cases(LONG, "lstm with its own value net", "filter"))
def test_segments_are_what_rllib_cuts_itself(name: str) -> None:
    setting = replace({**PLAIN, **CONNECTED, **FILTERED}[name], steps=(20, 60))
    recording = record(setting, calls=(SEGMENT_STEPS * setting.num_envs, SEGMENT_STEPS * setting.num_envs, setting.num_envs))
    done = replay(recording, array_policy(recording), segment_steps=SEGMENT_STEPS)
    chunks = [chunk for chunk in recording.chunks if len(chunk) == SEGMENT_STEPS]
    assert sorted(int(chunk.t_started) for chunk in chunks) == [0] * setting.num_envs + [SEGMENT_STEPS] * setting.num_envs
    ours = [done.segments[number_of(chunk)][int(chunk.t_started) // SEGMENT_STEPS] for chunk in chunks]
    for own, theirs in zip(ours, chunks, strict=True):
        check_episode(own, theirs, 1e-5)
    learner = learner_of(recording)
    check_batches(learner_batch(learner, ours), learner_batch(learner, chunks), 1e-5)
