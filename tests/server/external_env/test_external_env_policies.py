"""An episode of an ExternalEnv names the policy that decides it, and whether it explores, as a client's does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserver.common.errors import InvalidInputError, PolicyUnknownError
from policyserver.server.policies.named.named_policies import NamedPolicies
from tests.server.core_harness import module_of, observation, policy_of
from tests.server.external_env_harness import Served, serving_env

STEPS = 12


def last_action_first() -> Any:
    """Weights of a module whose most likely action is always the last one."""
    module = module_of()
    state = module.get_state()
    for name, values in state.items():
        state[name] = np.zeros_like(values)
        if name.startswith("pi.") and name.endswith("bias"):
            state[name][-1] = 1.0
    return state


def play(env: Any, **wanted: Any) -> list[int]:
    episode = env.start_episode(**wanted)
    actions = [int(env.get_action(episode, observation(step))) for step in range(STEPS)]
    env.end_episode(episode, observation(STEPS))
    return actions


def policies() -> NamedPolicies:
    live = policy_of(module_of())
    named = NamedPolicies(live)
    named.add("other", live.with_weights([], last_action_first(), 7, 0))
    return named


@pytest.mark.long
def test_an_episode_of_the_environment_is_given_to_the_policy_that_it_names() -> None:
    served: Served
    with serving_env(policy=policies()) as served:
        greedy = play(served.env, policy="other", explore=False)
        assert greedy == [served.env.action_space.n - 1] * STEPS
        assert set(play(served.env, episode_id="drawn by this", policy="other")) - set(greedy), "exploring, it draws others, too"
        assert play(served.env, explore=False) == play(served.env, explore=False), "the most likely ones"
        exploring = play(served.env, training_enabled=True)
        (segment,) = served.segments()
        assert segment.get_actions().tolist() == exploring, "PPO learns from the exploring episode of `live` alone"
        names = {figures.policy: figures.episodes_finished for figures in served.statistics().policies}
        assert names == {"other greedy": 1, "other": 1, "live greedy": 2, "live": 1}


@pytest.mark.long
def test_a_policy_that_is_not_there_costs_only_the_episode_that_names_it(served: Served, env: Any) -> None:
    with pytest.raises(InvalidInputError, match="policy: expected a name"):
        env.start_episode(policy=12)
    episode = env.start_episode(policy="nobody")
    with pytest.raises(PolicyUnknownError, match=r"expected 'live'.* received 'nobody'"):
        env.get_action(episode, observation())
    env.end_episode(episode, observation())
    served.settle()
    assert served.open_episodes == []
    play(env)
