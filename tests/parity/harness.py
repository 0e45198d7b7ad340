"""The same episodes through RLlib's own env runner and through ours, up to the batch that the learner computes its loss of."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import ray.rllib.algorithms as rllib
import torch
import tree
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import unbatch

from policyserver.common.acting.action_form import ActionForm
from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import HandOffConfig
from policyserver.server.policies.connectors.connector_choice import VectorizedPath, choose
from policyserver.server.policies.module.inference import PolicyNet
from policyserver.server.policies.policy import Policy
from policyserver.server.policies.vectorized import vectorized_policy as array_policies
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from tests.parity.scripted_env import ScriptedEnv
from tests.server.core_harness import CoreHarness, Row, spaces_of

Array = npt.NDArray[Any]

VECTOR = gym.spaces.Box(-3.0, 3.0, (6,), np.float32)
DISCRETE: gym.spaces.Discrete[np.int64] = gym.spaces.Discrete(4)
SMALL = {"fcnet_hiddens": [16], "vf_share_layers": True}


@dataclass(frozen=True)
class Setting:
    """What is configured, for RLlib and for us."""

    observation_space: gym.Space[Any] = field(default_factory=lambda: VECTOR)
    action_space: gym.Space[Any] = field(default_factory=lambda: DISCRETE)
    algorithm: str = "PPO"
    model: dict[str, Any] = field(default_factory=lambda: dict(SMALL))
    module_class: type | None = None
    connectors: Callable[[], list[ConnectorV2]] | None = None
    learner_connectors: Callable[[], list[ConnectorV2]] | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    """More arguments of `config.environment`."""
    training: dict[str, Any] = field(default_factory=dict)
    """More arguments of `config.training`."""
    lookback: int = 1
    steps: tuple[int, int] = (1, 30)
    """The least and the most steps of an episode."""
    num_envs: int = 4
    seed: int = 11

    def config(self) -> AlgorithmConfig:
        built: AlgorithmConfig = getattr(rllib, f"{self.algorithm}Config")()
        scripted = {"observation_space": self.observation_space, "action_space": self.action_space, "steps": self.steps}
        built.environment(ScriptedEnv, env_config=scripted, **self.environment)
        built.env_runners(num_env_runners=0, num_envs_per_env_runner=self.num_envs, episode_lookback_horizon=self.lookback)
        if self.connectors is not None:
            make = self.connectors
            built.env_runners(env_to_module_connector=lambda env, spaces, device: make())
        if self.learner_connectors is not None:
            make_learners = self.learner_connectors
            built.training(learner_connector=lambda observation_space, action_space: make_learners())
        built.training(**self.training)
        spec = RLModuleSpec(module_class=self.module_class, model_config=self.model) if self.module_class is not None else None
        built.rl_module(model_config=DefaultModelConfig(**self.model) if spec is None else self.model, rl_module_spec=spec)
        built.learners(num_learners=0)
        built.debugging(seed=self.seed, log_level="ERROR")
        return built


def cases(settings: Iterable[str], *quick: str) -> list[Any]:
    """Return settings' names as a test's parameters; those that are not `quick` are left to `make test-slow`."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in settings]


@dataclass
class Turn:
    """What RLlib's vector of environments did at once, and what its module was then asked."""

    observations: list[Any]
    infos: list[dict[str, Any]]
    is_new: Array
    rewards: Array
    terminated: Array
    truncated: Array
    actions: list[Any] | None = None
    """As they were executed, in response to the observations."""
    inputs: Any = None
    """The module's batch."""

    @property
    def ends(self) -> Array:
        ends: Array = self.terminated | self.truncated
        return ends


@dataclass
class Recording:
    """A run of RLlib's own env runner."""

    setting: Setting
    config: AlgorithmConfig
    runner: SingleAgentEnvRunner
    turns: list[Turn] = field(default_factory=list)
    chunks: list[SingleAgentEpisode] = field(default_factory=list)
    """What it gave to the learner."""

    def episodes(self) -> dict[int, SingleAgentEpisode]:
        """Return the complete episodes that came in one chunk, by number."""
        return {number_of(chunk): chunk for chunk in self.chunks if chunk.is_done and chunk.t_started == 0}


def record(setting: Setting, *, calls: Sequence[int] = (300,)) -> Recording:
    """Run RLlib's env runner on the scripted environment.

    Args:
        setting: What is configured.
        calls: The steps of each call of `sample`; between them RLlib cuts the open episodes.
    """
    config = setting.config()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = SingleAgentEnvRunner(config=config, worker_index=0)
    done = Recording(setting, config, runner)
    reset, step, forward = runner._try_env_reset, runner._try_env_step, runner.module.forward_exploration
    count = setting.num_envs

    def recorded_reset(**arguments: Any) -> Any:
        observations, infos = reset(**arguments)
        nothing = np.zeros(count, np.bool_)
        given = copy.deepcopy((unbatch(observations), infos))  # connectors may write to what the runner goes on with
        done.turns.append(Turn(*given, np.ones(count, np.bool_), np.zeros(count), nothing, nothing))
        return observations, infos

    def recorded_step(actions: Any) -> Any:
        last = done.turns[-1]
        last.actions = copy.deepcopy(list(actions))
        observations, rewards, terminated, truncated, infos = results = step(actions)
        given = copy.deepcopy((unbatch(observations), infos))
        done.turns.append(Turn(*given, last.ends, rewards.copy(), terminated.copy(), truncated.copy()))
        return results

    def recorded_forward(batch: dict[str, Any], **arguments: Any) -> Any:
        done.turns[-1].inputs = tree.map_structure(lambda tensor: tensor.clone(), dict(batch))
        torch.default_generator.manual_seed(len(done.turns) - 1)
        return forward(batch, **arguments)

    runner._try_env_reset, runner._try_env_step, runner.module.forward_exploration = recorded_reset, recorded_step, recorded_forward
    for steps in calls:
        done.chunks += runner.sample(num_timesteps=steps)
    runner.module.forward_exploration = forward
    return done


def array_path(recording: Recording) -> tuple[VectorizedPath, Any]:
    """Return what `connector_choice` finds for the setting, and the env-to-module pipeline it is for."""
    setting, config = recording.setting, recording.config
    spaces = spaces_of(setting.observation_space, setting.action_space)
    env_to_module = config.build_env_to_module_connector(spaces=spaces)
    path = choose(config, env_to_module, config.build_module_to_env_connector(spaces=spaces), form_of(recording))
    assert isinstance(path, VectorizedPath), path
    return path, env_to_module


def form_of(recording: Recording) -> ActionForm:
    config = recording.config
    return ActionForm(recording.setting.action_space, normalize=config.normalize_actions, clip=config.clip_actions)


def array_policy(recording: Recording, path: VectorizedPath | None = None) -> VectorizedPolicy:
    """Make our policy with array code, on a copy of the module of RLlib's runner."""
    path = path or array_path(recording)[0]
    return VectorizedPolicy(
        PolicyNet(recording.runner.module, explore=True),
        form_of(recording),
        path.recorded_space,
        recording.setting.action_space,
        connectors=path.connectors,
        num_frames=path.num_frames,
        lookback=recording.config.episode_lookback_horizon,
        state_every=state_every(recording),
    )


def state_every(recording: Recording) -> int:
    replays = getattr(recording.config, "replay_buffer_config", None) is not None
    return 1 if replays else int(recording.setting.model.get("max_seq_len", 20))


@dataclass
class Replay:
    """The same episodes through our core."""

    segments: dict[int, list[SingleAgentEpisode]]
    """What arrived at the learner, in order, by the episode's number."""
    inputs: list[Any]
    """What the net was asked in each turn, without the rows that end episodes."""
    executed: list[list[Any]]
    """The actions that were answered in each turn, None for rows that end episodes."""


@contextmanager
def _draws_of_torch() -> Iterator[None]:
    """Have our policies draw by torch's numbers, as RLlib's do, so that what becomes of a draw can be compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_policies, "draw", lambda distribution, draws, by: distribution.sample())
        yield


@_draws_of_torch()
def replay(recording: Recording, policy: Policy, *, given: bool = True, segment_steps: int = 64, joined: bool = False) -> Replay:
    """Send what happened in RLlib's environments to our core, a turn in a message.

    Args:
        recording: What happened.
        policy: What answers, with an attribute `_net` whose inputs are recorded.
        given: Whether the actions are given, too; if not, the same random numbers are drawn for them as were in RLlib's runner.
        segment_steps: The longest segment.
        joined: Whether segments of an episode arrive joined.
    """
    setting = recording.setting
    net: PolicyNet = policy._net  # type: ignore[attr-defined]
    inputs: list[Any] = []
    forward = net.forward

    def recorded_forward(columns: dict[str, Any], *, explore: bool | None = None) -> dict[str, Any]:
        inputs.append(tree.map_structure(lambda tensor: tensor.clone(), dict(columns)))
        return forward(columns, explore=explore)

    net.forward = recorded_forward  # type: ignore[method-assign]
    core = CoreHarness(
        policy,
        observation_space=setting.observation_space,
        action_space=setting.action_space,
        hand_off=HandOffConfig(segment_steps=segment_steps, capacity_steps=100_000),
    )
    done = Replay(defaultdict(list), [], [])
    open_: list[tuple[int, int]] = [(0, 0)] * setting.num_envs  # handle and sequence number
    for number, turn in enumerate(recording.turns):
        rows = [_row(turn, index, open_[index], given=given) for index in range(setting.num_envs)]
        torch.default_generator.manual_seed(number)
        answers = core.send(*rows)
        assert not [answer.error for answer in answers if answer.error]
        open_ = [(answer.handle, row.sequence) for answer, row in zip(answers, rows, strict=True)]
        done.inputs.append(inputs[-1] if not turn.ends.all() else None)
        done.executed.append([None if row.flags & StepFlag.END else answer.action for answer, row in zip(answers, rows, strict=True)])
    for segment in core.segments() if joined else core.segments_apart():
        done.segments[number_of(segment)].append(segment)
    for segments in done.segments.values():
        segments.sort(key=lambda segment: int(segment.t_started))
    core.close()
    return done


def _row(turn: Turn, index: int, episode: tuple[int, int], *, given: bool) -> Row:
    handle, sequence = episode
    row = Row(handle, sequence + 1, 0, float(turn.rewards[index]), turn.observations[index], info=turn.infos[index])
    if turn.is_new[index]:
        row = Row(0, 0, StepFlag.START, 0.0, turn.observations[index], episode_id=f"{number_in(turn.infos[index])}", info=turn.infos[index])
    elif turn.terminated[index]:
        row.flags = StepFlag.TERMINATED
    elif turn.truncated[index]:
        row.flags = StepFlag.TRUNCATED
    if given and turn.actions is not None and not row.flags & StepFlag.END:
        row.flags |= StepFlag.ACTION_GIVEN
        row.action = turn.actions[index]
    return row


def number_in(info: dict[str, Any]) -> int:
    return int(info["episode"])


def number_of(episode: SingleAgentEpisode) -> int:
    return number_in(episode.get_infos(0))
