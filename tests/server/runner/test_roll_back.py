"""An env runner that is rolled back serves the earlier state at once, and takes what RLlib sends for late until that has the state, too."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
from ray.rllib.core import COMPONENT_ENV_TO_MODULE_CONNECTOR, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO

from policyserver.client import PolicyClient
from policyserver.server.config.serving_config import HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.processes.weights_sum import sha256_of_weights
from policyserver.server.runner.env_runner import ExternalEnvRunner
from policyserver.server.runner.state import LINEAGE, ROLLED_BACK
from tests.server.core_harness import observation, ppo_config
from tests.server.serving_loop_harness import CLIENT


@pytest.fixture
def runner() -> Iterator[ExternalEnvRunner]:
    serving = ServingConfig(ListenConfig("127.0.0.1:0"), hand_off=HandOffConfig(sample_wait_s=0.2, batches_ahead=100.0))
    config = ppo_config().copy(copy_frozen=False)
    config.environment(env_config=serving.to_env_config())
    config.env_runners(num_env_runners=0, rollout_fragment_length=10, env_to_module_connector=lambda *_: MeanStdFilter())
    runner = ExternalEnvRunner(config=config, worker_index=0, num_workers=0)
    yield runner
    runner.stop()


def play(runner: ExternalEnvRunner, steps: int, center: float = 0.0) -> int:
    """Play an episode that goes on, and return the policy version that answered last."""
    with PolicyClient(runner.addresses()[0], config=CLIENT) as client:
        episode = client.start_episode()
        for step in range(steps + 1):
            client.get_action(episode, observation(center + step))
            client.log_returns(episode, 1.0)
        return client.weights_seq_no


def weights_of(runner: ExternalEnvRunner, factor: float) -> dict[str, Any]:
    return {name: np.asarray(value) * np.float32(factor) for name, value in runner.module.get_state().items()}


def pushed(weights: dict[str, Any], version: int, **more: Any) -> dict[str, Any]:
    return {COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: weights}, WEIGHTS_SEQ_NO: version, **more}


def rows_seen(runner: ExternalEnvRunner) -> int:
    (filter_,) = next(piece for piece in runner._env_to_module.connectors if isinstance(piece, MeanStdFilter))._filters.values()
    return int(filter_.running_stats[0].num_pushes if isinstance(filter_.running_stats, list) else filter_.running_stats.num_pushes)


def saved_state(runner: ExternalEnvRunner, lineage: int) -> dict[str, Any]:
    state = copy.deepcopy({**runner.get_state(not_components=COMPONENT_RL_MODULE), **pushed(weights_of(runner, 1.0), 0)})
    return {**state, NUM_ENV_STEPS_SAMPLED_LIFETIME: 70, LINEAGE: lineage}


def served(runner: ExternalEnvRunner) -> str:
    return sha256_of_weights(runner.module.state_dict())


@pytest.mark.long
def test_weights_filters_and_exploration_step_are_served_under_a_higher_version_and_steps_are_dropped(runner: ExternalEnvRunner) -> None:
    play(runner, 5)
    state, rows, expected = saved_state(runner, 1), rows_seen(runner), served(runner)
    runner.set_state(pushed(weights_of(runner, 3.0), 7))
    play(runner, 9, center=50.0)
    assert rows_seen(runner) > rows
    assert served(runner) != expected
    done = runner.roll_back(({**state, WEIGHTS_SEQ_NO: 8}, True))
    assert (done.weights_seq_no, done.weights_sha256, done.steps_dropped) == (8, expected, 14)
    assert rows_seen(runner) == rows
    assert runner.num_env_steps_sampled_lifetime == 70
    assert list(runner.sample()) == []  # type: ignore[arg-type]
    assert play(runner, 1) == 8


@pytest.mark.long
def test_steps_stay_where_they_may(runner: ExternalEnvRunner) -> None:
    play(runner, 9)
    assert runner.roll_back(({**saved_state(runner, 1), WEIGHTS_SEQ_NO: 1}, False)).steps_dropped == 0
    play(runner, 9)
    episodes: list[Any] = list(runner.sample())  # type: ignore[arg-type]
    assert sum(map(len, episodes)) == 18


@pytest.mark.long
def test_the_version_is_higher_than_all_that_were_served_whatever_the_daemon_knew(runner: ExternalEnvRunner) -> None:
    state = saved_state(runner, 1)
    runner.set_state(pushed(weights_of(runner, 3.0), 12))
    assert runner.roll_back(({**state, WEIGHTS_SEQ_NO: 9}, True)).weights_seq_no == 13


@pytest.mark.long
def test_what_rllib_sent_before_its_learner_followed_is_late_and_what_comes_after_counts(runner: ExternalEnvRunner) -> None:
    state, expected = saved_state(runner, 2), served(runner)
    bad = weights_of(runner, 3.0)
    runner.set_state(pushed(bad, 7))
    runner.roll_back(({**state, WEIGHTS_SEQ_NO: 8}, True))
    filters = runner.get_state(components=COMPONENT_ENV_TO_MODULE_CONNECTOR)
    for late in (pushed(bad, 7), pushed(bad, 9), pushed(bad, 9, **{LINEAGE: 1}), {**filters, NUM_ENV_STEPS_SAMPLED_LIFETIME: 10**6}):
        runner.set_state(late)
        assert (served(runner), runner.weights_seq_no, runner.num_env_steps_sampled_lifetime) == (expected, 8, 70)
    runner.set_state(pushed(state[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID], 8, **{LINEAGE: 2}))
    assert (served(runner), runner.weights_seq_no) == (expected, 8)
    runner.set_state(pushed(bad, 7))
    assert (served(runner), runner.weights_seq_no) == (expected, 8), "one that was on its way even longer"
    better = weights_of(runner, 2.0)
    runner.set_state(pushed(better, 9))
    assert (served(runner), runner.weights_seq_no) == (sha256_of_weights(better), 9)


@pytest.mark.long
def test_a_restarted_instance_that_is_offered_a_roll_back_takes_rllibs_weights_for_late_too(runner: ExternalEnvRunner) -> None:
    state, expected = saved_state(runner, 1), served(runner)
    runner.revive({**state, COMPONENT_RL_MODULE: state[COMPONENT_RL_MODULE], WEIGHTS_SEQ_NO: 8, ROLLED_BACK: True})
    runner.set_state(pushed(weights_of(runner, 3.0), 7))
    assert (served(runner), runner.weights_seq_no) == (expected, 8)
    runner.set_state(pushed(weights_of(runner, 2.0), 9, **{LINEAGE: 1}))
    assert runner.weights_seq_no == 9


@pytest.mark.long
@pytest.mark.parametrize("lineage", [1, 2], ids=["its own", "a later one"])
def test_an_order_that_comes_after_the_learner_followed_changes_nothing(runner: ExternalEnvRunner, lineage: int) -> None:
    state = saved_state(runner, 1)
    runner.set_state(pushed(weights_of(runner, 3.0), 7))
    runner.set_state(pushed(state[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID], 8, **{LINEAGE: lineage}))
    runner.set_state(pushed(weights_of(runner, 2.0), 9))
    play(runner, 9)
    expected = served(runner)
    done = runner.roll_back(({**state, WEIGHTS_SEQ_NO: 8}, True))
    assert (done.weights_seq_no, done.weights_sha256, done.steps_dropped) == (9, expected, 0)
    assert (served(runner), play(runner, 1)) == (expected, 9)
    later = weights_of(runner, 1.5)
    runner.set_state(pushed(later, 10))
    assert (served(runner), runner.weights_seq_no) == (sha256_of_weights(later), 10), "what the learner pushes is not late"


@pytest.mark.long
def test_an_order_to_an_instance_that_was_restarted_with_its_state_does_not_raise_the_version(runner: ExternalEnvRunner) -> None:
    state, expected = saved_state(runner, 1), served(runner)
    runner.revive({**state, WEIGHTS_SEQ_NO: 8, ROLLED_BACK: True})
    done = runner.roll_back(({**state, WEIGHTS_SEQ_NO: 8}, True))
    assert (done.weights_seq_no, done.weights_sha256) == (8, expected)
    runner.set_state(pushed(weights_of(runner, 3.0), 9))
    assert runner.weights_seq_no == 8, "the learner has not followed"
    runner.set_state(pushed(weights_of(runner, 1.0), 8, **{LINEAGE: 1}))
    runner.set_state(pushed(weights_of(runner, 2.0), 9))
    assert runner.weights_seq_no == 9
