"""With connectors and callbacks of the user's own, RLlib's env runner and ours make the same of the same episodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter, PrevActionsPrevRewards
from ray.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule
from ray.rllib.connectors.learner.frame_stacking import FrameStackingLearner

from policyserver.server.policies.connectors.connector_policy import ConnectorPolicy
from policyserver.server.policies.connectors.episode_callbacks import EpisodeCallbacks
from policyserver.server.policies.module.inference import PolicyNet
from tests.parity.comparison import check_parity
from tests.parity.harness import Recording, Replay, Setting, cases, form_of, record, replay, state_every
from tests.parity.modules import DictModule
from tests.parity.test_parity import CONVOLUTION, FAR, FRAME, LSTM, PARTS
from tests.server.core_harness import spaces_of
from tests.server.user_connectors import (
    CenterOnEverythingSeen,
    CuriousReward,
    DifferenceInTheBatch,
    NextActionOnOddSteps,
    ScaleObservations,
    ShiftInTheBatch,
)

pytestmark = pytest.mark.long

LONGER = gym.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))


@dataclass(frozen=True)
class OwnSetting(Setting):
    """More that a user may configure."""

    outward: Callable[[], list[ConnectorV2]] | None = None
    callbacks: Any = None

    def config(self) -> AlgorithmConfig:
        config = super().config()
        if self.outward is not None:
            make = self.outward
            config.env_runners(module_to_env_connector=lambda env, spaces: make())
        if self.callbacks is not None:
            config.callbacks(self.callbacks)
        return config


def stock_policy(recording: Recording, *, chunk_steps: int = 7, callbacks: EpisodeCallbacks | None = None) -> ConnectorPolicy:
    """Make our policy with RLlib's pipelines, on a copy of the module of RLlib's runner."""
    setting, config = recording.setting, recording.config
    spaces = spaces_of(setting.observation_space, setting.action_space)
    return ConnectorPolicy(
        PolicyNet(recording.runner.module, explore=True),
        form_of(recording),
        config.build_env_to_module_connector(spaces=spaces),
        config.build_module_to_env_connector(spaces=spaces),
        setting.observation_space,
        setting.action_space,
        lookback=config.episode_lookback_horizon,
        state_every=state_every(recording),
        chunk_steps=chunk_steps,
        callbacks=callbacks,
    )


def of_those_that_ask(recording: Recording, done: Replay) -> Replay:
    """Leave out what the net was asked for the rows that end their episodes, which the harness does not expect."""
    for number, (turn, inputs) in enumerate(zip(recording.turns, done.inputs, strict=True)):
        if inputs is not None:
            asking = torch.from_numpy(np.flatnonzero(~turn.ends))
            done.inputs[number] = tree.map_structure(lambda tensor, rows=asking: tensor[rows], inputs)
    return done


def check_executed(recording: Recording, done: Replay) -> None:
    """Compare the actions that environments executed."""
    compared = 0
    for turn, ours in zip(recording.turns, done.executed, strict=True):
        if turn.actions is not None:
            for their, own in zip(turn.actions, ours, strict=True):
                if own is not None:
                    np.testing.assert_array_equal(own, their)
                    compared += 1
    assert compared > 100


SETTINGS: dict[str, Setting] = {
    "RLlib's own alone": OwnSetting(),
    "RLlib's own alone, lstm": OwnSetting(model={**LSTM, "vf_share_layers": True}),
    "RLlib's own alone, lstm with its own value net": OwnSetting(model={**LSTM, "vf_share_layers": False}),
    "RLlib's own alone, own module on a Dict": OwnSetting(PARTS, module_class=DictModule, model={"hidden": 12}),
    "RLlib's own alone, continuous actions": OwnSetting(action_space=LONGER),
    "RLlib's own alone, several discrete actions": OwnSetting(action_space=gym.spaces.MultiDiscrete([3, 2, 4])),
    "writes observations": OwnSetting(connectors=lambda: [ScaleObservations()]),
    "changes the batch alone": OwnSetting(connectors=lambda: [ShiftInTheBatch()]),
    "changes rewards and infos": OwnSetting(connectors=lambda: [CuriousReward()]),
    "has a state": OwnSetting(connectors=lambda: [CenterOnEverythingSeen()], model={**LSTM, "vf_share_layers": True}),
    "looks back": OwnSetting(connectors=lambda: [DifferenceInTheBatch(steps=3)], lookback=3),
    "beside RLlib's filter": OwnSetting(FAR, connectors=lambda: [MeanStdFilter(), CenterOnEverythingSeen()]),
    "beside previous actions and rewards": OwnSetting(
        connectors=lambda: [CuriousReward(), PrevActionsPrevRewards(), FlattenObservations(), ScaleObservations()]
    ),
    "beside frames": OwnSetting(
        FRAME,
        connectors=lambda: [ScaleObservations(), FrameStackingEnvToModule(num_frames=3)],
        learner_connectors=lambda: [FrameStackingLearner(num_frames=3)],
        model=CONVOLUTION,
        lookback=2,
        steps=(1, 12),
    ),
    "on the way out": OwnSetting(outward=lambda: [NextActionOnOddSteps(count=4)]),
    "both ways": OwnSetting(connectors=lambda: [ScaleObservations(), CuriousReward()], outward=lambda: [NextActionOnOddSteps(count=4)]),
}


QUICK = (
    "RLlib's own alone",
    "RLlib's own alone, lstm with its own value net",
    "RLlib's own alone, continuous actions",
    "changes the batch alone",
    "changes rewards and infos",
    "has a state",
    "beside RLlib's filter",
    "beside frames",
    "on the way out",
)


@pytest.mark.parametrize("name", cases(SETTINGS, *QUICK))
def test_inputs_actions_episodes_and_batches_are_rllibs(name: str) -> None:
    recording = record(SETTINGS[name], calls=(200,))
    done = of_those_that_ask(recording, replay(recording, stock_policy(recording), given=False))
    check_executed(recording, done)
    check_parity(recording, done)


CUT = ["has a state", "beside frames", "looks back", "changes rewards and infos", "RLlib's own alone, several discrete actions"]


@pytest.mark.parametrize("name", cases(CUT, "looks back", "RLlib's own alone, several discrete actions"))
def test_given_actions_and_episodes_that_rllib_cuts_make_no_difference(name: str) -> None:
    recording = record(replace(SETTINGS[name], steps=(5, 40)), calls=(320, 40, 40))
    done = of_those_that_ask(recording, replay(recording, stock_policy(recording), segment_steps=10))  # a multiple of max_seq_len
    check_parity(recording, done, segment_steps=10)


class Diary(RLlibCallback):  # type: ignore[misc]
    """Writes down, episode by episode, what it is told, and changes rewards."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, list[Any]] = defaultdict(list)

    def _note(self, name: str, episode: Any, arguments: dict[str, Any]) -> None:
        newest = (episode.t, episode.get_infos(-1), episode.get_observations(-1).tolist()) if episode.is_reset else ()
        reward = episode.get_rewards(-1) if episode.t else 0.0
        custom = dict(episode.custom_data)
        self.entries[episode.id_].append((name, *newest, round(float(reward), 6), custom, episode.is_done, sorted(arguments)))

    def on_episode_created(self, *, episode: Any, **arguments: Any) -> None:
        episode.custom_data["steps"] = 0
        self._note("created", episode, arguments)

    def on_episode_start(self, *, episode: Any, **arguments: Any) -> None:
        self._note("start", episode, arguments)

    def on_episode_step(self, *, episode: Any, **arguments: Any) -> None:
        episode.set_rewards(new_data=episode.get_rewards(-1) - 0.5, at_indices=-1)
        episode.custom_data["steps"] += 1
        self._note("step", episode, arguments)

    def on_episode_end(self, *, episode: Any, prev_episode_chunks: Sequence[Any], **arguments: Any) -> None:
        arguments["return"] = round(sum(chunk.get_return() for chunk in [*prev_episode_chunks, episode]), 5)
        self._note(f"end with {arguments['return']}", episode, arguments)

    def by_number(self) -> dict[int, list[Any]]:
        """Return the entries by the number of the episode, of those that have one."""
        return {entries[1][2]["episode"]: entries for entries in self.entries.values() if len(entries) > 1}


def test_callbacks_are_told_what_rllib_tells_them_and_what_they_change_is_learned() -> None:
    recording = record(OwnSetting(callbacks=Diary, connectors=lambda: [ScaleObservations()], steps=(1, 20)), calls=(400,))
    (theirs,) = recording.runner._callbacks
    ours = Diary()
    policy = stock_policy(recording, callbacks=EpisodeCallbacks(recording.config, [ours], env_runner=None), chunk_steps=6)
    done = of_those_that_ask(recording, replay(recording, policy, given=False))
    check_parity(recording, done)
    expected, found = theirs.by_number(), ours.by_number()
    assert set(found) == set(expected)
    for number, entries in expected.items():
        assert found[number] == entries
    assert sum(entries[-1][0].startswith("end") for entries in expected.values()) > 20
