"""The net whose actions tell the observation's label takes no other, whether it acts or learns."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from benchmarks.cluster.labelled_net import LabelledNet
from benchmarks.cluster.labels import ACTIONS, NUMBERS, mixed_up, observations


@pytest.mark.long
def test_each_action_is_of_the_label() -> None:
    space = gym.spaces.Box(-np.inf, np.inf, (NUMBERS,), np.float32)
    spec = RLModuleSpec(
        module_class=LabelledNet,
        observation_space=space,
        action_space=gym.spaces.Discrete(ACTIONS),
        model_config={"fcnet_hiddens": [8]},
    )
    net = spec.build()
    observed = observations(np.random.default_rng(0), 500)
    batch = {Columns.OBS: torch.from_numpy(observed)}
    for out in (net.forward_exploration(batch), net.forward_inference(batch), net.forward_train(batch)):
        chances = torch.softmax(out[Columns.ACTION_DIST_INPUTS], -1).detach()
        assert mixed_up(observed, torch.multinomial(chances, 1)[:, 0].numpy()) == 0
        assert torch.count_nonzero(chances) == 2 * len(observed)
        entropy = net.get_train_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS]).entropy()
        assert torch.isfinite(entropy).all()
