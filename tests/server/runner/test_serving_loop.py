"""The serving thread: what it binds, who it lets in, how it starts, waits and stops."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import grpc
import pytest

from policyserver.client import ClientConfig, PolicyClient
from policyserver.common.errors import AuthenticationError, EpisodeFinishedError, PolicyServerError, ServerUnavailableError
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.processes.training_report import TrainingReport
from policyserver.server.runner.serving_loop import ServingLoop
from policyserver.v1 import policy_service_pb2 as pb
from tests.client.inner_parts import connection_of
from tests.ports import free_address
from tests.server.core_harness import ACTION, OBSERVATION, module_of, observation, policy_of
from tests.server.serving_loop_harness import CLIENT, ServingLoopHarness, running_serving_loop

WaitUntil = Callable[[Callable[[], bool]], None]


def serving_loop_of(listen: ListenConfig) -> ServingLoop:
    def core() -> EpisodeCore:
        return EpisodeCore(policy_of(module_of()), OBSERVATION, ACTION, EpisodesConfig(max_open=8), HandOffConfig())

    return ServingLoop(core, OBSERVATION, ACTION, ServingConfig(listen))


@pytest.mark.long
def test_it_listens_on_a_free_port_and_on_a_unix_socket_at_once(serve: ServingLoopHarness, tmp_path: Path) -> None:
    path = f"unix:{tmp_path / 'socket'}"
    assert serve.serving_loop.bind(path) == path
    assert serve.serving_loop.addresses == [serve.address, path]
    for address in serve.serving_loop.addresses:
        with PolicyClient(address, config=CLIENT) as client:
            assert client.get_action(client.start_episode(), observation()) in range(3)
            assert client.server_info().endpoints == (serve.address, path)


@pytest.mark.long
def test_a_port_in_use_is_an_error_that_names_it(serve: ServingLoopHarness) -> None:
    second = serving_loop_of(ListenConfig(serve.address))
    second.start()
    try:
        with pytest.raises(OSError, match=f"{serve.address} is in use"):
            second.bind()
        assert second.addresses == []
    finally:
        second.stop()


def test_a_stopped_server_gives_its_port_back() -> None:
    address = free_address()
    with running_serving_loop(address=address) as first:
        first.client().connect()
    again = serving_loop_of(ListenConfig(address))
    again.start()
    assert again.bind() == address
    again.stop()


def test_stop_may_come_twice_and_from_several_threads_and_leaves_no_thread() -> None:
    serving_loop = serving_loop_of(ListenConfig("127.0.0.1:0"))
    serving_loop.start()
    serving_loop.bind()
    threads = [threading.Thread(target=serving_loop.stop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    serving_loop.stop()
    assert serving_loop.wait_stopped(0.0)
    assert not any(thread.name == "policy-server" for thread in threading.enumerate())
    assert serving_loop.sample(1, 5.0) == []
    serving_loop.drain()


@pytest.mark.long
def test_a_stop_answers_those_who_wait(serve: ServingLoopHarness, wait_until: WaitUntil) -> None:
    waiting: list[object] = []
    thread = threading.Thread(target=lambda: waiting.append(serve.serving_loop.sample(10**6, 3600.0)))
    thread.start()
    client = serve.client()
    episode = client.start_episode()
    client.get_action(episode, observation())
    serve.serving_loop.stop()
    thread.join(30.0)
    assert waiting == [[]], "long before the hour that it may wait for"
    wait_until(lambda: not connection_of(client).is_open)
    with pytest.raises(ServerUnavailableError):
        client.get_action(episode, observation(), timeout_s=0.2)


def test_a_core_that_cannot_be_made_is_an_error_where_it_was_asked_for() -> None:
    def broken() -> EpisodeCore:
        raise ValueError("no such net")

    serving_loop = ServingLoop(broken, OBSERVATION, ACTION, ServingConfig())
    with pytest.raises(ValueError, match="no such net"):
        serving_loop.start()
    serving_loop.stop()
    assert not any(thread.name == "policy-server" for thread in threading.enumerate())


@pytest.mark.long
def test_sample_waits_for_steps_but_no_longer_than_it_may(serve: ServingLoopHarness) -> None:
    began = time.monotonic()
    assert serve.serving_loop.sample(1, 0.2) == []
    assert 0.15 < time.monotonic() - began < 30.0, "not the 30 s more after which the answer is given up"
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.append(sum(block.steps for block in serve.serving_loop.sample(3, 60.0))))
    thread.start()
    client = serve.client()
    for _ in range(2):
        episode = client.start_episode()
        for step in range(2):
            client.get_action(episode, observation(step))
        client.end_episode(episode, observation(2))
    thread.join(50.0)
    assert taken == [3], "open pages count, too"


@pytest.mark.long
def test_a_lost_stream_ends_its_episodes_and_a_silent_one_does_not(wait_until: WaitUntil) -> None:
    with running_serving_loop(episodes=EpisodesConfig(max_open=8, episode_idle_timeout_s=0.2)) as serve:
        silent = serve.client()
        kept = silent.start_episode()
        silent.get_action(kept, observation(7))
        with PolicyClient(serve.address, config=CLIENT) as gone:
            lost = gone.start_episode()
            gone.get_action(lost, observation(0))
            gone.log_returns(lost, 1.0)
            gone.get_action(lost, observation(1))
        wait_until(lambda: silent.stats().episodes_reaped == 1)
        (segment,) = serve.segments()
        assert (segment.get_rewards().tolist(), segment.is_truncated) == ([1.0], True)
        wait_until(lambda: silent.stats().episodes_open == 1)
        silent.log_returns(kept, 1.0)
        silent.end_episode(kept, observation(8))
        assert silent.stats().episodes_reaped == 1


def test_the_newest_training_iteration_is_in_the_statistics(serve: ServingLoopHarness) -> None:
    stub = serve.stub()
    assert not stub.GetStats(pb.GetStatsRequest()).HasField("training")
    report = TrainingReport(iteration=3, weights_seq_no=3, return_mean=None, loss=0.5, kl=None, entropy=1.0, steps=10, steps_total=30,
                            seconds=1.0, learn_seconds=0.5, learner_updates=3, checkpoint_path="", staleness_mean=0.25,
                            learning_rate=5e-4)  # fmt: skip
    serve.serving_loop.report_training(report)
    training = stub.GetStats(pb.GetStatsRequest()).training
    assert (training.iteration, training.loss, training.staleness_mean, training.learning_rate) == (3, 0.5, 0.25, 5e-4)
    assert not training.HasField("return_mean")
    assert not training.HasField("kl")


@pytest.mark.long
def test_weights_swap_while_actions_are_asked_for(serve: ServingLoopHarness) -> None:
    client = serve.client()
    episode = client.start_episode()
    stop = threading.Event()

    def swap() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            serve.policy.load_spare(module_of().state_dict())
            serve.serving_loop.serve_weights(number)

    thread = threading.Thread(target=swap)
    thread.start()
    seen: list[int] = []
    until_s = time.monotonic() + 60.0
    try:
        while len(seen) < 100 or (len(set(seen)) < 3 and time.monotonic() < until_s):
            client.get_action(episode, observation(len(seen) % 50))
            seen.append(client.weights_seq_no)
    finally:
        stop.set()
        thread.join()
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3, "new versions answered"


@pytest.fixture
def secured(tmp_path: Path, missing_service: Callable[[str], NoReturn]) -> ListenConfig:
    if shutil.which("openssl") is None:
        missing_service("the command openssl, which makes a certificate, is not installed")
    certificate, key, token = tmp_path / "certificate.pem", tmp_path / "key.pem", tmp_path / "token"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    for file, text in ((key, None), (token, "a-token-of-good-length")):
        if text is not None:
            file.write_text(text)
        file.chmod(0o600)
    return ListenConfig(tls_certificate_file=certificate, tls_key_file=key, token_file=token)


@pytest.mark.process
def test_with_certificate_and_token_a_client_gets_in_and_without_it_does_not(secured: ListenConfig, tmp_path: Path) -> None:
    with running_serving_loop(listen=secured) as serve:
        good = replace(CLIENT, tls_ca_file=secured.tls_certificate_file, token_file=secured.token_file)
        client = serve.client(good)
        assert client.get_action(client.start_episode(), observation()) in range(3)
        assert client.server_info().boot_id == serve.serving_loop.boot_id

        wrong = tmp_path / "wrong"
        wrong.write_text("another-token-of-good-length")
        wrong.chmod(0o600)
        for token_file in (wrong, None):
            with pytest.raises(AuthenticationError):
                serve.client(replace(good, token_file=token_file)).start_episode()

        plain = ClientConfig(connect_timeout_s=1.0, reconnect_backoff_initial_s=0.02, reconnect_backoff_max_s=0.1)
        with pytest.raises(ServerUnavailableError):
            serve.client(plain).start_episode()
        stub = serve.stub()
        with pytest.raises(grpc.RpcError):
            stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=2.0)


def test_a_second_server_cannot_share_the_port_by_reuseport(serve: ServingLoopHarness) -> None:
    host, _, port = serve.address.rpartition(":")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((host, int(port)))


@pytest.mark.long
def test_threads_of_one_client_and_two_clients_are_kept_apart(serve: ServingLoopHarness) -> None:
    clients = [serve.client(), serve.client()]
    failures: list[BaseException] = []

    def play(client: PolicyClient, number: int) -> None:
        try:
            episode = client.start_episode(f"{number}")
            for step in range(20):
                client.get_action(episode, observation(number, step))
                client.log_returns(episode, number)
            client.end_episode(episode, observation(number, 20))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=play, args=(clients[number % 2], number)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    segments = serve.segments(want_steps=320)
    assert sorted(int(segment.get_observations(0)[0]) for segment in segments) == list(range(16))
    for segment in segments:
        number = segment.get_observations(0)[0]
        assert set(segment.get_rewards().tolist()) == {number}
        assert segment.get_observations()[:, 1].tolist() == list(range(21))
    with pytest.raises(PolicyServerError) as refused:
        clients[0].get_action("1", observation())
    assert not isinstance(refused.value, EpisodeFinishedError), "the other client's episode is not its own"
