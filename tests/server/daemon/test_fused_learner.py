"""The fused learner learns what RLlib's does."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.fused_learner import FusedPPOLearner
from policyserver.server.daemon.ray_start import RayProcess
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.server.core_harness import ACTION, OBSERVATION, CoreHarness, module_of, policy_of, ppo_config, spaces_of

MODELS = ["mlp", "lstm_shared", "lstm_apart"]
GPU = pytest.param(1, id="gpu", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use"))


@pytest.fixture(scope="module", params=[pytest.param(0, id="cpu"), GPU])
def gpus(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many GPUs a learner has; for one RLlib wants a Ray that runs."""
    gpus: int = request.param
    if not gpus:
        yield gpus
        return
    ray_process = RayProcess()
    try:
        ray_process.start(num_cpus=1)
        yield gpus
    finally:
        ray_process.stop()


def learner_of(model: str, learner_class: type, gpus: int = 0, **experimental: Any) -> Any:
    config = ppo_config(model).copy().learners(learner_class=learner_class, num_gpus_per_learner=gpus)
    learner = config.experimental(**experimental).training(grad_clip=0.5).build_learner(spaces=spaces_of(OBSERVATION, ACTION))
    assert learner.device.type == ("cuda" if gpus else "cpu")
    return learner


@functools.cache
def recorded(model: str) -> bytes:
    harness = CoreHarness(policy_of(module_of(model)))
    try:
        for name, steps in (("a", 12), ("b", 7), ("c", 30)):
            harness.play(name, steps)
        return pickle.dumps(harness.segments())
    finally:
        harness.close()


def episodes_of(model: str) -> list[SingleAgentEpisode]:
    """The same episodes each time, for a learner changes those it gets."""
    episodes: list[SingleAgentEpisode] = pickle.loads(recorded(model))
    return episodes


def update(learner: Any, episodes: list[SingleAgentEpisode]) -> None:
    learner.update(episodes=episodes, num_epochs=3, minibatch_size=None)


def weights_of(learner: Any) -> dict[str, Any]:
    state = learner.get_state(components=COMPONENT_RL_MODULE)[COMPONENT_RL_MODULE]["default_policy"]
    return {name: np.array(value) for name, value in state.items()}


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_two_updates_lead_to_rllibs_weights(model: str, gpus: int) -> None:
    ours, theirs = learner_of(model, FusedPPOLearner, gpus), learner_of(model, PPOTorchLearner, gpus)
    theirs.set_state(ours.get_state(components=COMPONENT_RL_MODULE))  # and not Adam's settings, which must be the same anyway
    before = weights_of(ours)
    for _ in range(2):
        update(ours, episodes_of(model))
        update(theirs, episodes_of(model))
    assert_same(weights_of(ours), weights_of(theirs))
    moved = max(float(np.abs(value - before[name]).max()) for name, value in weights_of(ours).items())
    assert moved > 1e-3, "three epochs twice at a learning rate of 1e-3"


@pytest.mark.long
@pytest.mark.parametrize("source_class", [FusedPPOLearner, PPOTorchLearner], ids=["its_own", "rllibs"])
def test_it_goes_on_from_a_saved_state_with_adams_moments(source_class: type, gpus: int) -> None:
    source = learner_of("mlp", source_class, gpus)
    update(source, episodes_of("mlp"))
    restored = learner_of("mlp", FusedPPOLearner, gpus)
    restored.set_state(source.get_state())
    for learner in (source, restored):
        update(learner, episodes_of("mlp"))
    assert_same(weights_of(restored), weights_of(source))
    (steps,) = {int(moments["step"]) for moments in restored.get_optimizer("default_policy").state.values()}
    assert steps == 6


def test_gradients_that_are_not_finite_are_mended_as_rllib_does(gpus: int) -> None:
    learners = [learner_of("mlp", FusedPPOLearner, gpus), learner_of("mlp", PPOTorchLearner, gpus)]
    learners[1].set_state(learners[0].get_state(components=COMPONENT_RL_MODULE))  # Adam's state would bring its fused form along
    for learner in learners:
        parameters = learner.get_parameters(learner.module["default_policy"])
        gradients = {parameter: torch.full_like(parameter, 0.1) for parameter in parameters}
        gradients[parameters[0]][0] = torch.nan
        gradients[parameters[1]][0] = torch.inf
        learner.apply_gradients(gradients)
        learner.apply_gradients({parameter: torch.full_like(parameter, 0.1) for parameter in parameters})
    ours, theirs = map(weights_of, learners)
    assert all(np.isfinite(value).all() for value in ours.values())
    assert_same(ours, theirs)


@pytest.mark.parametrize(("value", "fused"), [(torch.nan, True), (torch.inf, None), (-1e30, None)])
def test_after_a_gradient_whose_square_is_infinite_adam_is_rllibs(value: float, fused: bool | None) -> None:
    """An infinite moment is what PyTorch's fused form does not bear on every device."""
    learner = learner_of("mlp", FusedPPOLearner)
    parameters = learner.get_parameters(learner.module["default_policy"])
    gradients = {parameter: torch.full_like(parameter, 0.1) for parameter in parameters}
    gradients[parameters[0]][0] = value
    learner.apply_gradients(gradients)
    assert learner.get_optimizer("default_policy").param_groups[0]["fused"] is fused


def test_a_parameter_without_gradient_stays_where_it_is() -> None:
    learner = learner_of("mlp", FusedPPOLearner)
    first, *others = learner.get_parameters(learner.module["default_policy"])
    before = [parameter.detach().clone() for parameter in (first, others[0])]
    learner.apply_gradients({first: None} | {parameter: torch.ones_like(parameter) for parameter in others})
    assert torch.equal(first, before[0])
    assert not torch.equal(others[0], before[1])
    learner.apply_gradients({})


def test_schedulers_of_the_learning_rate_still_work() -> None:
    learner = learner_of("mlp", FusedPPOLearner, _torch_lr_scheduler_classes=[halving])
    update(learner, episodes_of("mlp"))
    assert learner.get_optimizer("default_policy").param_groups[0]["lr"] == pytest.approx(5e-4)


def halving(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


def test_it_is_what_ppo_learns_with_unless_the_configuration_says_otherwise() -> None:
    assert algorithm_config(ServerConfig(), ExternalEnvRunner).learner_class is FusedPPOLearner
