"""The env runner keeps RLlib's contract: what it returns, counts, takes and where it serves."""

from __future__ import annotations

import logging
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import pytest
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import (
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    COMPONENT_RL_MODULE,
    DEFAULT_AGENT_ID,
    DEFAULT_MODULE_ID,
)
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.external_env import ExternalEnv
from ray.rllib.env.external_multi_agent_env import ExternalMultiAgentEnv
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO
from ray.rllib.utils.metrics.stats import EmaStats

from policyserver.client import PolicyClient
from policyserver.server.config.serving_config import HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.external_env.policy_server import PolicyServer
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.ports import free_address
from tests.server.core_harness import ACTION, OBSERVATION, observation, ppo_config
from tests.server.serving_loop_harness import CLIENT

Make = Callable[..., ExternalEnvRunner]


@pytest.fixture
def make_runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make runners that are stopped after the test; they leave the settings of this process alone."""
    monkeypatch.setattr(ExternalEnvRunner, "_prepare_process", staticmethod(lambda: None))
    monkeypatch.setattr("policyserver.server.runner.env_runner.log_to", lambda *_: None)
    with ExitStack() as stack:

        def make(worker_index: int = 0, *, num_env_runners: int = 0, **changes: Any) -> ExternalEnvRunner:
            serving = ServingConfig(
                ListenConfig(changes.pop("address", "127.0.0.1:0")),
                hand_off=HandOffConfig(sample_wait_s=changes.pop("sample_wait_s", 0.2), batches_ahead=100.0),
                opens_itself=changes.pop("opens_itself", True),
                learns=changes.pop("learns", True),
            )
            config = ppo_config().copy(copy_frozen=False)
            config.seed = changes.pop("seed", config.seed)
            config.environment(env=changes.pop("env", None), env_config=serving.to_env_config())
            config.env_runners(num_env_runners=num_env_runners, rollout_fragment_length=changes.pop("fragment", 10))
            config.callbacks(**changes.pop("callbacks", {}))
            config.in_evaluation = changes.pop("in_evaluation", False)
            runner = ExternalEnvRunner(config=config, worker_index=worker_index, num_workers=num_env_runners, **changes)
            stack.callback(runner.stop)
            return runner

        yield make


@pytest.fixture
def runner(make_runner: Make) -> ExternalEnvRunner:
    return make_runner()


def play(runner: ExternalEnvRunner, *lengths: int, **options: Any) -> int:
    """Play episodes and return the policy version that answered last."""
    with PolicyClient(runner.addresses()[0], config=CLIENT) as client:
        for length in lengths:
            episode = client.start_episode(**options)
            for step in range(length):
                client.get_action(episode, observation(step))
                client.log_returns(episode, 1.0)
            client.end_episode(episode, observation(length))
        return client.weights_seq_no


def sampled(runner: ExternalEnvRunner, **options: Any) -> list[SingleAgentEpisode]:
    return pickle.loads(pickle.dumps(runner.sample(**options)))  # type: ignore[no-any-return]


def values(metrics: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        flat.update(values(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


@pytest.mark.long
def test_without_a_client_sample_returns_nothing_in_time(runner: ExternalEnvRunner) -> None:
    began = time.monotonic()
    assert list(runner.sample()) == []  # type: ignore[arg-type]
    assert 0.15 < time.monotonic() - began < 25.0, "not the 30 s more after which an answer is given up"
    assert values(runner.get_metrics())["num_env_steps_sampled"].peek() == 0


class Tells(RLlibCallback):  # type: ignore[misc]
    """Counts samples and drops episodes of one step."""

    def on_sample_end(self, *, env_runner: Any, metrics_logger: Any, samples: list[SingleAgentEpisode], **kwargs: Any) -> None:
        assert isinstance(env_runner, ExternalEnvRunner)
        metrics_logger.log_value("samples", len(samples), reduce="sum")
        samples[:] = [episode for episode in samples if len(episode) > 1]


@pytest.mark.long
@pytest.mark.parametrize("worker_index", [0, 1])
def test_a_callback_sees_each_sample_and_what_it_drops_is_not_learned_from(make_runner: Make, worker_index: int) -> None:
    functions: list[int] = []
    runner = make_runner(
        worker_index,
        num_env_runners=worker_index,
        callbacks={"callbacks_class": Tells, "on_sample_end": lambda *, samples, **rest: functions.append(len(samples))},
    )
    play(runner, 3, 1, 2)
    assert [len(episode) for episode in sampled(runner, num_timesteps=6)] == [3, 2]
    assert functions == [2], "after the class's"
    assert values(runner.get_metrics())["samples"].peek() == 3


@pytest.mark.long
@pytest.mark.parametrize("worker_index", [0, 1])
def test_sample_gives_a_list_of_valid_episodes_with_every_step(make_runner: Make, worker_index: int) -> None:
    runner = make_runner(worker_index, num_env_runners=worker_index)
    play(runner, 3, 80, 1)
    episodes = sampled(runner, num_timesteps=84)
    assert type(episodes) is list
    for episode in episodes:
        assert isinstance(episode, SingleAgentEpisode)
        episode.validate()
        assert episode.is_numpy
    assert sum(len(episode) for episode in episodes) == 84
    assert [len(episode) for episode in episodes] == [3, 80, 1], "joined"


@pytest.mark.long
def test_sample_waits_for_a_fragment_and_asks_for_other_amounts(make_runner: Make) -> None:
    runner = make_runner(sample_wait_s=80.0, fragment=6)
    done: list[list[SingleAgentEpisode]] = []
    thread = threading.Thread(target=lambda: done.append(sampled(runner)))
    thread.start()
    play(runner, 3)
    assert not done
    play(runner, 3)
    thread.join(60.0)
    assert [len(episode) for episode in done[0]] == [3, 3]
    play(runner, 2)
    assert len(sampled(runner, num_timesteps=2)) == 1
    with pytest.raises(ValueError, match="num_episodes"):
        runner.sample(num_episodes=1)


@pytest.mark.long
def test_the_metrics_have_the_keys_and_kinds_of_rllibs_own_runner(runner: ExternalEnvRunner) -> None:
    theirs = SingleAgentEnvRunner(config=PPOConfig().environment("CartPole-v1").env_runners(num_env_runners=0), worker_index=0)
    theirs.sample(num_timesteps=300, random_actions=True)
    expected = {name: type(value) for name, value in values(theirs.get_metrics()).items() if not isinstance(value, EmaStats)}
    theirs.stop()
    play(runner, 4, 6)
    play(runner, 5, training_enabled=False)
    runner.sample()
    metrics = values(runner.get_metrics())
    # The version that acted is a column of every step here, not a metric of the call; nothing in RLlib reads that metric.
    assert {name: type(metrics.get(name)) for name in expected if name != WEIGHTS_SEQ_NO} == {
        name: kind for name, kind in expected.items() if name != WEIGHTS_SEQ_NO
    }
    facts = {
        "num_env_steps_sampled": 10,
        f"num_agent_steps_sampled/{DEFAULT_AGENT_ID}": 10,
        f"num_module_steps_sampled/{DEFAULT_MODULE_ID}": 10,
        "num_env_steps_sampled_lifetime": 10,
        "num_episodes": 2,
        "episode_return_mean": 5.0,
        "episode_len_mean": 5.0,
        "episode_len_min": 4,
        "episode_return_max": 6.0,
    }
    assert {name: metrics[name].peek() for name in facts} == facts
    runner.sample()
    again = values(runner.get_metrics())
    assert again["num_env_steps_sampled"].peek() == 0
    assert "num_env_steps_sampled_lifetime" in again


@pytest.mark.long
def test_only_one_instance_of_a_group_serves_and_never_one_that_evaluates(make_runner: Make) -> None:
    assert len(make_runner(0, num_env_runners=0).addresses()) == 1
    assert len(make_runner(1, num_env_runners=2).addresses()) == 1
    for silent in (
        make_runner(0, num_env_runners=2),
        make_runner(0, num_env_runners=0, in_evaluation=True),
        make_runner(1, num_env_runners=2, in_evaluation=True),
    ):
        assert silent.addresses() == []
        assert silent.sample() == []
        silent.open()
        silent.drain()
        silent.assert_healthy()
        assert silent.addresses() == []


@pytest.mark.parametrize(("learns", "index", "seed"), [(False, 0, 7), (True, 1, 8), (True, 2, 9)])
def test_where_no_learner_is_it_seeds_the_process_and_leaves_pytorchs_compiler_alone(
    make_runner: Make, monkeypatch: pytest.MonkeyPatch, learns: bool, index: int, seed: int
) -> None:
    """RLlib asks for deterministic algorithms, for which a build of PyTorch without CUDA imports the compiler: seconds of a start."""
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_: pytest.fail("it imports the compiler"))
    runner = make_runner(index, num_env_runners=index, learns=learns, seed=7)
    assert (torch.initial_seed(), runner.config.seed) == (seed, 7)


@pytest.mark.long
def test_spaces_are_given_under_every_name_that_rllib_looks_for(runner: ExternalEnvRunner) -> None:
    spaces = runner.get_spaces()
    assert {INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID} <= set(spaces)
    assert all(space == (OBSERVATION, ACTION) for space in spaces.values())


@pytest.mark.long
def test_the_state_has_rllibs_components_and_only_those_asked_for(runner: ExternalEnvRunner) -> None:
    connectors = {COMPONENT_ENV_TO_MODULE_CONNECTOR, COMPONENT_MODULE_TO_ENV_CONNECTOR}
    assert set(runner.get_state()) == {COMPONENT_RL_MODULE, WEIGHTS_SEQ_NO, NUM_ENV_STEPS_SAMPLED_LIFETIME} | connectors
    assert set(runner.get_state(components=list(connectors))) == connectors | {NUM_ENV_STEPS_SAMPLED_LIFETIME}
    assert COMPONENT_RL_MODULE not in runner.get_state(not_components=COMPONENT_RL_MODULE)
    state = runner.get_state()
    state[NUM_ENV_STEPS_SAMPLED_LIFETIME] = 123
    runner.set_state(pickle.loads(pickle.dumps(state)))
    assert runner.num_env_steps_sampled_lifetime == 123


def weights_of(number: float, runner: ExternalEnvRunner) -> dict[str, Any]:
    return {name: np.full(value.shape, number, np.float32) for name, value in runner.module.get_state().items()}


def acting(runner: ExternalEnvRunner) -> float:
    """The number that all weights of the net that serves have."""
    return float(next(iter(cast(Any, runner._policy).live._net.module.parameters())).detach().flatten()[0])


@pytest.mark.long
def test_the_weights_that_rllib_sets_last_are_served_whatever_their_version(runner: ExternalEnvRunner) -> None:
    def take(number: float, **state: Any) -> Any:
        runner.set_state({COMPONENT_RL_MODULE: weights_of(number, runner), **state})
        return acting(runner), play(runner, 1)

    assert take(0.01, weights_seq_no=5) == (pytest.approx(0.01), 5)
    assert take(0.02, weights_seq_no=4) == (pytest.approx(0.02), 4), "an older checkpoint was restored"
    assert runner.get_state()[WEIGHTS_SEQ_NO] == 4
    assert take(0.03, weights_seq_no=6) == (pytest.approx(0.03), 6)
    assert take(0.04, weights_seq_no=0) == (pytest.approx(0.04), 6)
    assert take(0.05) == (pytest.approx(0.05), 6)
    runner.set_state({COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: weights_of(0.06, runner)}, WEIGHTS_SEQ_NO: 7})
    assert acting(runner) == pytest.approx(0.06)
    assert play(runner, 1) == 7


def test_the_daemons_link_brings_no_older_weights_than_rllib_did(runner: ExternalEnvRunner) -> None:
    def revive(number: float, version: int) -> Any:
        runner._revive({COMPONENT_RL_MODULE: weights_of(number, runner), WEIGHTS_SEQ_NO: version})
        return acting(runner), runner.get_state()[WEIGHTS_SEQ_NO]

    assert revive(0.01, 0) == (pytest.approx(0.01), 0), "of a learner without updates"
    assert revive(0.02, 3) == (pytest.approx(0.02), 3)
    runner.set_state({COMPONENT_RL_MODULE: weights_of(0.05, runner), WEIGHTS_SEQ_NO: 5})
    assert revive(0.04, 4) == (pytest.approx(0.05), 5)


@pytest.mark.long
def test_a_state_without_weights_changes_none(runner: ExternalEnvRunner) -> None:
    before = acting(runner)
    runner.set_state({NUM_ENV_STEPS_SAMPLED_LIFETIME: 5})
    assert acting(runner) == before


class Serving(ExternalEnv):  # type: ignore[misc]
    """The seed's program in small."""

    def run(self) -> None:
        PolicyServer(self, "localhost", 0).serve_forever()


class Failing(ExternalEnv):  # type: ignore[misc]
    def run(self) -> None:
        raise OSError("the plant is on fire")


def make_env(cls: type[ExternalEnv]) -> Callable[[Any], ExternalEnv]:
    return lambda context: cls(ACTION, OBSERVATION)


@pytest.mark.long
def test_the_environments_own_run_opens_the_server(make_runner: Make, wait_until: Callable[[Callable[[], bool]], None]) -> None:
    runner = make_runner(env=Serving, env_creator=make_env(Serving))
    wait_until(lambda: bool(runner.addresses()))
    play(runner, 4)
    assert sum(len(episode) for episode in sampled(runner, num_timesteps=4)) == 4
    runner.stop()
    assert "policy-server" not in {thread.name for thread in threading.enumerate()}
    env: Any = runner.env
    env.join(60.0)
    assert not env.is_alive()


@pytest.mark.long
def test_an_environment_whose_server_waits_for_its_weights_runs_when_that_opens(
    make_runner: Make, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    told: list[Any] = []
    callbacks = {"on_environment_created": lambda *, env, env_context, **rest: told.append((env, env_context.worker_index))}
    runner = make_runner(env=Serving, env_creator=make_env(Serving), opens_itself=False, callbacks=callbacks)
    env: Any = runner.env
    assert told == [(env, 0)]
    assert not env.is_alive()
    for _ in range(2):
        runner.open()
    wait_until(lambda: bool(runner.addresses()))
    play(runner, 1)


def test_a_run_that_fails_reaches_whoever_samples(make_runner: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        runner = make_runner(env=Failing, env_creator=make_env(Failing))
        env: Any = runner.env
        env.join(60.0)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="Failing failed") as raised:
                runner.sample()
    assert "the plant is on fire" in str(raised.value.__cause__)
    assert "the plant is on fire" in caplog.text


def test_a_policy_server_outside_an_algorithm_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match=r"env_runner_cls=ExternalEnvRunner"):
        PolicyServer(Serving(ACTION, OBSERVATION), "localhost", 0).serve_forever()


@pytest.mark.parametrize("env", [object(), ExternalMultiAgentEnv({"a": ACTION}, {"a": OBSERVATION})])
def test_another_kind_of_environment_is_refused(make_runner: Make, env: Any) -> None:
    with pytest.raises(ValueError, match="expected an ExternalEnv"):
        make_runner(env="CartPole-v1", env_creator=lambda context: env)


@pytest.mark.long
def test_stop_may_come_twice_and_frees_the_port(make_runner: Make) -> None:
    runner = make_runner(address=free_address())
    (address,) = runner.addresses()
    runner.stop()
    runner.stop()
    assert list(runner.sample()) == []  # type: ignore[arg-type]
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))):
        pass


@pytest.mark.usefixtures("private_ray")
@pytest.mark.timeout(300)
def test_in_a_ray_actor_weights_arrive_by_reference_and_episodes_as_a_list() -> None:
    config = ppo_config().copy(copy_frozen=False)
    serving = ServingConfig(ListenConfig("127.0.0.1:0"), hand_off=HandOffConfig(sample_wait_s=5.0))
    config.environment(env_config=serving.to_env_config()).env_runners(num_env_runners=1)
    actor = ray.remote(num_cpus=1)(ExternalEnvRunner).remote(config=config, worker_index=1, num_workers=1)
    (address,) = ray.get(actor.addresses.remote())
    state = ray.get(actor.get_state.remote(components=[COMPONENT_RL_MODULE]))
    weights = {name: np.zeros_like(value) for name, value in state[COMPONENT_RL_MODULE].items()}
    ray.get(actor.set_state.remote({COMPONENT_RL_MODULE: ray.put(weights), WEIGHTS_SEQ_NO: 3}))
    with PolicyClient(address, config=CLIENT) as client:
        episode = client.start_episode()
        client.get_action(episode, observation())
        client.log_returns(episode, 2.0)
        client.end_episode(episode, observation(1))
        assert client.weights_seq_no == 3
    episodes = ray.get(actor.sample.remote(num_timesteps=1))
    assert type(episodes) is list
    (segment,) = episodes
    assert isinstance(segment, SingleAgentEpisode)
    assert segment.get_rewards().tolist() == [2.0]
    assert segment.get_extra_model_outputs("action_logp")[0] == pytest.approx(-np.log(3.0)), "zero weights: all actions alike"
    ray.get(actor.stop.remote())
    assert sys.getswitchinterval() == pytest.approx(0.005), "the actor's process was tuned, not this one"
