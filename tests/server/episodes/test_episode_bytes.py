"""What an open episode takes is known before one is there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policyserver.server.config.serving_config import EpisodesConfig
from policyserver.server.episodes.memory import episode_bytes
from tests.server.core_harness import CoreHarness, module_of, policy_of, trajectories_of


@pytest.mark.parametrize("model", ["mlp", "lstm_shared"])
def test_what_an_open_episode_takes_is_known_before_one_is_there(make_harness: Callable[..., CoreHarness], model: str) -> None:
    harness = make_harness(policy_of(module_of(model)), episodes=EpisodesConfig(max_open=100))
    layout, trajectories = harness.policy.layout, trajectories_of(harness.core)
    said = episode_bytes(layout, trajectories._full_steps - layout.carried)
    state = sum(leaf.nbytes for leaf in harness.policy.initial_state)
    assert said == trajectories.page_bytes + 8 + state + 128
