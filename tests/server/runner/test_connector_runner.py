"""An env runner whose configuration has connectors and callbacks of the user's own, from the client's call to the learner's end."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import COMPONENT_ENV_TO_MODULE_CONNECTOR

from policyserver.client import PolicyClient
from policyserver.common.errors import ServerInternalError
from policyserver.common.settings import SettingsError
from policyserver.server.config.serving_config import HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.config.traffic_config import TrafficConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.server.core_harness import observation, ppo_config
from tests.server.serving_loop_harness import CLIENT
from tests.server.user_connectors import CenterOnEverythingSeen, CuriousReward, Faulty, ScaleObservations

Make = Callable[..., ExternalEnvRunner]


@pytest.fixture
def make_runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr("policyserver.server.runner.env_runner.log_to", lambda *_: None)
    with ExitStack() as stack:

        def make(*connectors: Any, callbacks: Any = None, traffic: TrafficConfig | None = None) -> ExternalEnvRunner:
            hand_off = HandOffConfig(sample_wait_s=0.2, batches_ahead=100.0)
            serving = ServingConfig(ListenConfig("127.0.0.1:0"), hand_off=hand_off, traffic=traffic or TrafficConfig())
            config = ppo_config().copy(copy_frozen=False)
            config.environment(env_config=serving.to_env_config())
            config.env_runners(
                num_env_runners=0, rollout_fragment_length=10, env_to_module_connector=lambda env, spaces, device: list(connectors)
            )
            if callbacks is not None:
                config.callbacks(callbacks)
            runner = ExternalEnvRunner(config=config, worker_index=0, num_workers=0)
            stack.callback(runner.stop)
            return runner

        yield make


def play(runner: ExternalEnvRunner, steps: int) -> None:
    with PolicyClient(runner.addresses()[0], config=CLIENT) as client:
        episode = client.start_episode()
        for step in range(steps):
            client.get_action(episode, observation(step))
            client.log_returns(episode, 1.0)
        client.end_episode(episode, observation(steps))


class Lengths(RLlibCallback):  # type: ignore[misc]
    """Logs a metric of its own."""

    def on_episode_end(self, *, episode: Any, env_runner: Any, metrics_logger: Any, prev_episode_chunks: Any, **kwargs: Any) -> None:
        assert isinstance(env_runner, ExternalEnvRunner)
        metrics_logger.log_value("odd_length", sum(map(len, [*prev_episode_chunks, episode])) % 2, reduce="sum")
        metrics_logger.log_value("num_episodes", 100, reduce="sum")  # a key of RLlib's own, as nobody should


@pytest.mark.long
def test_what_connectors_and_callbacks_do_reaches_the_learners_end(make_runner: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    runner = make_runner(ScaleObservations(), CuriousReward(), callbacks=Lengths)
    assert "on_episode_end" in caplog.text
    assert "RLlib's own speed" in caplog.text
    play(runner, 3)
    play(runner, 4)
    first, second = pickle.loads(pickle.dumps(runner.sample(num_timesteps=7)))
    np.testing.assert_allclose(first.get_observations()[:, 0], np.arange(4) / 50)
    np.testing.assert_allclose(second.get_rewards(), 1 + np.arange(1, 5) / 500, rtol=1e-6)
    assert [info["bonus"] for info in second.get_infos()[1:]] == pytest.approx(list(np.arange(1, 5) / 500))
    metrics = runner.get_metrics()
    assert (metrics["odd_length"].peek(), metrics["num_episodes"].peek()) == (1, 2)
    assert "env_to_module_connector" in metrics
    play(runner, 5)
    runner.sample(num_timesteps=5)
    metrics = runner.get_metrics()
    assert (metrics["odd_length"].peek(), metrics["num_episodes"].peek()) == (1, 1)


@pytest.mark.long
def test_states_of_connectors_are_given_and_taken_while_episodes_are_open(make_runner: Make) -> None:
    runner = make_runner(CenterOnEverythingSeen())
    with PolicyClient(runner.addresses()[0], config=CLIENT) as client:
        episode = client.start_episode()
        client.get_action(episode, observation(10))
        state = runner.get_state(components=COMPONENT_ENV_TO_MODULE_CONNECTOR)[COMPONENT_ENV_TO_MODULE_CONNECTOR]["CenterOnEverythingSeen"]
        assert (state["count"], state["sum"][0]) == (1, 10)
        runner.set_state({COMPONENT_ENV_TO_MODULE_CONNECTOR: {"CenterOnEverythingSeen": {"count": 3, "sum": observation(0)}}})
        client.get_action(episode, observation(20))
        client.end_episode(episode, observation(30))
    (segment,) = pickle.loads(pickle.dumps(runner.sample(num_timesteps=1)))
    assert segment.get_observations()[:, 0].tolist() == [0, 20 - 20 / 4, 30 - 50 / 5]


class Asks(RLlibCallback):  # type: ignore[misc]
    """Asks its env runner for something that the thread it is called on owns."""

    def on_episode_end(self, *, env_runner: Any, metrics_logger: Any, **kwargs: Any) -> None:
        state = env_runner.get_state(components=COMPONENT_ENV_TO_MODULE_CONNECTOR)[COMPONENT_ENV_TO_MODULE_CONNECTOR]
        metrics_logger.log_value("rows_seen", state["CenterOnEverythingSeen"]["count"], reduce="sum")


@pytest.mark.long
def test_a_callback_may_ask_its_env_runner(make_runner: Make) -> None:
    runner = make_runner(CenterOnEverythingSeen(), callbacks=Asks)
    play(runner, 2)
    assert runner.get_metrics()["rows_seen"].peek() == 3


@pytest.mark.long
def test_a_connector_that_raises_costs_its_rows_and_nothing_else(make_runner: Make) -> None:
    def break_down(batch: Any, episodes: Any) -> None:
        raise ZeroDivisionError("a user's mistake")

    faulty = Faulty()
    runner = make_runner(faulty)
    with PolicyClient(runner.addresses()[0], config=CLIENT) as client:
        episode = client.start_episode()
        client.get_action(episode, observation(1))
        client.log_returns(episode, 2.0)
        faulty.fault = break_down
        with pytest.raises(ServerInternalError, match="incident"):
            client.get_action(episode, observation(2))
        client.get_action(episode, observation(2))
        client.log_returns(episode, 3.0)
        client.end_episode(episode, observation(3))
    (segment,) = pickle.loads(pickle.dumps(runner.sample(num_timesteps=2)))
    assert segment.get_rewards().tolist() == [2.0, 3.0]
    assert segment.get_observations()[:, 0].tolist() == [1, 2, 3]


@pytest.mark.long
@pytest.mark.parametrize("traffic", [TrafficConfig(shares={"live": 0.5, "live@start": 0.5}), TrafficConfig(shadow="candidate")])
def test_traffic_is_refused_where_only_the_policy_that_learns_can_be_served(make_runner: Make, traffic: TrafficConfig) -> None:
    make_runner(traffic=traffic)
    setting, received = ("shares", traffic.shares) if traffic.shares else ("shadow", traffic.shadow)
    text = "traffic.{}: expected none with {}, which has no array code, so that only 'live' is served; received {!r}. Leave either out"
    for faulty, without in (
        ({"callbacks": Lengths}, "the callback on_episode_end"),
        ({"connectors": CuriousReward}, "the connector CuriousReward"),
    ):
        connectors = [faulty["connectors"]()] if "connectors" in faulty else []
        with pytest.raises(SettingsError) as refused:
            make_runner(*connectors, callbacks=faulty.get("callbacks"), traffic=traffic)
        assert str(refused.value) == text.format(setting, without, received)
