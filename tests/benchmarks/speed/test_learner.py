"""What the learners are measured on, and that RLlib's default settings are RLlib's."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from benchmarks.market.learners import RLLIB_SERVER
from benchmarks.speed.contenders import learner
from benchmarks.speed.learner import LEARNERS, Updates, configuration
from benchmarks.speed.peers.table import CPU, GPU, LEARNER_DEFAULTS_GPU, PEERS, MissingError
from benchmarks.speed.recorded_steps import EPISODES, Markets
from benchmarks.speed.servers import Servers
from policyserver.common.settings import load
from policyserver.pipelines.demo.setup import DEMO_SERVER
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner

torch.set_num_threads(1)  # more of them wait for each other on a busy machine

DECIDE_AN_UPDATE = (
    *("lr", "train_batch_size_per_learner", "minibatch_size", "num_epochs", "shuffle_batch_per_epoch", "grad_clip", "grad_clip_by"),
    *("gamma", "lambda_", "use_critic", "use_gae", "vf_clip_param", "vf_loss_coeff", "clip_param", "entropy_coeff"),
    *("use_kl_loss", "kl_coeff", "kl_target", "num_learners", "learner_class"),
)


def settings(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in DECIDE_AN_UPDATE}


def test_the_settings_called_rllibs_defaults_are_rllibs_but_for_what_belongs_to_the_problem() -> None:
    built = algorithm_config(load(ServerConfig, RLLIB_SERVER, {}), ExternalEnvRunner)
    default = PPOConfig().rl_module(model_config=DefaultModelConfig(use_lstm=True))
    ours, rllibs = settings(built), settings(default)
    differing = {name for name in ours if ours[name] != rllibs[name]}
    assert differing == {"gamma", "lambda_"}
    assert built.model_config == default.model_config
    demo = algorithm_config(load(ServerConfig, DEMO_SERVER, {}), ExternalEnvRunner)
    assert (built.gamma, built.lambda_) == (demo.gamma, demo.lambda_)


@pytest.fixture(scope="module")
def updates() -> Updates:
    return Updates(LEARNERS["demo"], batch_steps=640)


def test_the_steps_are_those_of_the_demos_problem(updates: Updates) -> None:
    episodes = pickle.loads(updates.steps)
    assert sum(map(len, episodes)) == pytest.approx(640, abs=64)
    assert all(episode.t_started == 0 for episode in episodes), "the oldest are handed off first"
    for episode in episodes:
        matching = 0
        observations, rewards = replayed(episode.get_actions())
        for row in range(EPISODES):
            if np.allclose(episode.get_observations(), observations[:, row]):
                np.testing.assert_allclose(episode.get_rewards(), rewards[:, row], atol=1e-4)
                matching += 1
        assert matching == 1


def replayed(actions: Any) -> tuple[Any, Any]:
    """Return what is seen and earned in every row by the same actions, (steps + 1, EPISODES, size) and (steps, EPISODES)."""
    markets = Markets()
    observations, rewards = [markets.observations()], []
    for action in actions:
        rewards.append(markets.step(np.full(EPISODES, int(action))))
        observations.append(markets.observations())
    return np.array(observations), np.array(rewards)


def test_every_update_begins_with_the_same_weights_and_counts_its_steps(updates: Updates) -> None:
    figures = [updates.window(0.0) for _ in range(2)]
    assert [window["updates"] for window in figures] == [1, 1]
    for window in figures:
        assert window["steps_per_s"] * window["p50_ms"] / 1e3 == pytest.approx(640, abs=64)
        assert window["cpu_us_per_step"] > 0
    before, after = pickle.loads(updates.begins_with), updates.learner.get_state()
    assert steps_taken(before) == set()
    assert len(steps_taken(after)) == 1
    assert 6 <= max(steps_taken(after)) <= 12, "6 epochs of one update, and not of all that were done"


def steps_taken(state: dict[str, Any]) -> set[int]:
    """Return how often Adam has moved each parameter."""
    return {int(moments["step"]) for optimizer in state["optimizer"].values() for moments in optimizer["state"]["state"].values()}


def test_the_learners_between_differ_from_rllibs_defaults_in_one_thing() -> None:
    def built(name: str) -> Any:
        return configuration(LEARNERS[name])[1]

    net, update, rllibs, demo = map(built, ("demo_net", "demo_update", "rllib_defaults", "demo"))
    assert settings(net) == settings(rllibs)
    assert net.model_config == demo.model_config != rllibs.model_config
    assert update.model_config == rllibs.model_config
    assert settings(update) | {"learner_class": None} == settings(demo) | {"learner_class": None} != settings(rllibs)


def test_on_a_gpu_the_settings_are_the_same_but_for_where_it_learns() -> None:
    for name in LEARNERS:
        there, here = (configuration(LEARNERS[name], device)[1] for device in (GPU, CPU))
        assert settings(there) == settings(here)
        assert there.model_config == here.model_config
        assert (there.num_gpus_per_learner, here.num_gpus_per_learner) == (1, 0)


def test_the_whole_batch_differs_from_the_demo_in_its_minibatch() -> None:
    whole, demo = (settings(configuration(LEARNERS[name])[1]) for name in ("demo_whole_batch", "demo"))
    assert whole["minibatch_size"] == whole["train_batch_size_per_learner"]
    assert whole | {"minibatch_size": None} == demo | {"minibatch_size": None}
    assert demo["minibatch_size"] == 512


def test_a_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for version, reason in (("13.0", "no CUDA device"), (None, "built without CUDA")):
        monkeypatch.setattr(torch.version, "cuda", version)
        with Servers() as servers, pytest.raises(MissingError, match=reason), learner("demo", GPU)(servers):
            pass
        with pytest.raises(MissingError, match=reason), PEERS[LEARNER_DEFAULTS_GPU].running():
            pass


ON_GPU = pytest.param(GPU, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use"))


@pytest.mark.slow
@pytest.mark.parametrize("device", [CPU, ON_GPU])
def test_a_learner_takes_turns_in_a_process_of_its_own(device: str) -> None:
    with Servers() as servers, learner("demo", device)(servers) as window:
        first, second = window(0.1), window(0.1)
    assert min(first["steps_per_s"], second["steps_per_s"]) > 100
    assert first["net"] == "LSTM 64 behind 64-64"
