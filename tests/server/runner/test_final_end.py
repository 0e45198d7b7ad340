"""Whether the end of a server is final, and what those hear of it who wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from policyserver.client import EpisodeLostError, PolicyClient, PolicyServerError
from policyserver.server.config.serving_config import HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner
from policyserver.server.runner.serving_loop import ServingLoop
from tests.ports import free_address
from tests.server.core_harness import observation, ppo_config
from tests.server.serving_loop_harness import CLIENT, ServingLoopHarness, Unary, refused_start, running_serving_loop
from tests.services import wait_until

PATIENT = replace(CLIENT, action_timeout_s=90.0, connect_timeout_s=90.0)
AT_ONCE_S = 30.0
"""Well below what such a client waits, and above what a machine takes that is busy or stands still for a while."""


def serving(address: str = "127.0.0.1:0") -> ExternalEnvRunner:
    """The env runner of a program of one's own, which is the only one to know when it is done."""
    served = ServingConfig(ListenConfig(address), hand_off=HandOffConfig(sample_wait_s=0.1)).to_env_config()
    config = ppo_config().copy(copy_frozen=False).environment(env_config=served).env_runners(num_env_runners=0)
    return ExternalEnvRunner(config=config, worker_index=0, num_workers=0)


def heard(call: Callable[[], Any]) -> tuple[str, float]:
    """Make a call; the name of its error, and the seconds until it was there."""
    began = time.monotonic()
    try:
        call()
    except PolicyServerError as error:
        return type(error).__name__, time.monotonic() - began
    return "", time.monotonic() - began


@pytest.mark.long
def test_after_the_end_of_the_algorithm_every_caller_hears_at_once_that_nobody_comes_back() -> None:
    runner = serving()
    said: list[tuple[str, float]] = []
    with PolicyClient(runner.addresses()[0], config=PATIENT) as client:
        episodes = client.start_episodes(9)
        stopped_s = [0.0]

        def play(episode: str) -> None:
            try:
                while True:
                    client.get_action(episode, observation())
            except PolicyServerError as error:
                said.append((type(error).__name__, time.monotonic()))

        threads = [threading.Thread(target=play, args=(episode,)) for episode in episodes[:8]]
        for thread in threads:
            thread.start()
        wait_until(lambda: client.counters().rows_answered > 100, "the callers to play")
        runner.stop()
        stopped_s[0] = time.monotonic()
        for thread in threads:
            thread.join()
        assert {name for name, _ in said} == {"ServerEndedError"}
        assert max(when_s for _, when_s in said) - stopped_s[0] < AT_ONCE_S
        later = {
            "a step": heard(lambda: client.get_action(episodes[8], observation())),
            "a beginning": heard(client.start_episode),
            "statistics": heard(client.stats),
            "a reward": heard(lambda: client.log_returns(episodes[0], 1.0)),
        }
    assert {name: error for name, (error, _) in later.items()} == dict.fromkeys(later, "ServerEndedError")
    assert max(seconds for _, seconds in later.values()) < AT_ONCE_S


def test_an_end_that_draining_called_not_final_is_none() -> None:
    """As of a server that serves a checkpoint alone, which a service manager starts again."""
    runner = serving()
    with PolicyClient(runner.addresses()[0], config=replace(CLIENT, connect_timeout_s=0.5)) as client:
        wait_until(lambda: heard(client.connect)[0] == "", "the connection")
        runner.drain(is_final=False)
        runner.stop()
        assert heard(client.stats)[0] == "ServerUnavailableError"


@pytest.mark.long
def test_a_client_that_was_told_so_goes_on_by_itself_where_somebody_serves_again() -> None:
    address = free_address()
    runner = serving(address)
    with PolicyClient(address, config=CLIENT) as client:
        episode = client.start_episode()
        client.get_action(episode, observation())
        runner.stop()
        wait_until(lambda: heard(client.start_episode)[0] == "ServerEndedError", "the client to hear of the end")
        runner = serving(address)
        try:
            wait_until(lambda: heard(client.start_episode)[0] == "", "the client to connect")
            assert client.get_action(client.start_episode(), observation()) in range(3)
            with pytest.raises(EpisodeLostError):
                client.get_action(episode, observation())
        finally:
            runner.stop()


@pytest.mark.long
def test_before_another_server_of_a_service_manager_callers_wait_as_ever() -> None:
    with running_serving_loop(address=free_address()) as first:
        client = first.client(PATIENT)
        episode = client.start_episode()
        client.get_action(episode, observation())
        said: list[tuple[str, float]] = []
        first.serving_loop.drain()
        waiting = [
            threading.Thread(target=lambda: said.append(heard(lambda: client.get_action(client.start_episode(), observation())))),
            threading.Thread(target=lambda: said.append(heard(lambda: client.get_action(episode, observation(1))))),
        ]
        for thread in waiting:
            thread.start()
        first.serving_loop.stop()
        time.sleep(0.5)
        second = successor_of(first)
        try:
            for thread in waiting:
                thread.join()
        finally:
            second.stop()
    assert "ServerEndedError" not in {name for name, _ in said}
    assert "" in {name for name, _ in said}, "the episode that began is the successor's"


def successor_of(first: ServingLoopHarness) -> ServingLoop:
    serving_loop = ServingLoop(first.serving_loop._make_core, *first.serving_loop._spaces, ServingConfig(ListenConfig(first.address)))
    serving_loop.start()
    serving_loop.bind()
    return serving_loop


@pytest.mark.long
@pytest.mark.parametrize(("is_final", "reason"), [(False, "SHUTTING_DOWN"), (True, "SERVER_ENDED")])
def test_while_it_drains_a_beginning_is_refused_with_what_comes_and_open_episodes_go_on(is_final: bool, reason: str) -> None:
    with running_serving_loop() as serve:
        client, caller = serve.client(), Unary(serve.stub())
        episode, unary = client.start_episode(), caller.start()
        client.get_action(episode, observation())
        caller.get_action(unary, observation())
        serve.serving_loop.drain(is_final=is_final)
        wait_until(lambda: serve.serving_loop.core.drain_error is not None, "the draining")
        with pytest.raises(grpc.RpcError) as refused:
            caller.start()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        said: dict[str, Any] = {item.key: item.value for item in refused.value.trailing_metadata() or ()}
        assert said["policyserver-reason"] == reason
        assert refused_start(client).reason == reason
        assert client.get_action(episode, observation(1)) in range(3)
        assert caller.get_action(unary, observation(1))[0] in range(3)


@pytest.mark.long
def test_answers_that_are_on_their_way_arrive_before_the_end_of_the_stream() -> None:
    with running_serving_loop() as serve:
        client = serve.client()
        episodes = client.start_episodes(64)
        client.get_actions(episodes, [observation(number) for number in range(64)])
        answered: list[int] = []

        def play() -> None:
            try:
                while True:
                    client.get_actions(episodes, [observation(number) for number in range(64)])
                    answered.append(64)
            except PolicyServerError:
                return

        thread = threading.Thread(target=play)
        thread.start()
        wait_until(lambda: len(answered) > 5, "some batches")
        serve.serving_loop.stop(is_final=True)
        thread.join()
        computed = serve.serving_loop.core.statistics.actions
    assert computed == 64 * (len(answered) + 1), "every action that was computed and recorded is known to the one who asked"
