"""A client's streams leave nothing behind: no object that keeps the process from ending, no channel that a missing thread has spoilt."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from policyserver.client import ActionTimeoutError, PolicyClient, ServerUnavailableError
from policyserver.client.config import ClientConfig
from tests.client.conftest import FAST, Service, addresses
from tests.client.inner_parts import connection_of, connections_of, hurry
from tests.client.reference_server import ReferenceServer
from tests.services import wait_until
from tests.streams import Streams

ZEROS = np.zeros(10, np.float32)
READER = "policy-client-reader"


@pytest.mark.long
def test_a_closed_client_has_left_no_object_of_its_stream(server: ReferenceServer, streams: Streams) -> None:
    client = PolicyClient(server.address, config=FAST)
    client.get_action(client.start_episode(), ZEROS)
    assert streams.left == 1
    client.close()
    assert (streams.begun, streams.left) == (1, 0)


@pytest.mark.long
@pytest.mark.parametrize("why", ["away", "other spaces", "a break", "a mistake of ours"])
def test_an_attempt_that_failed_has_left_none(server: ReferenceServer, streams: Streams, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    space = gym.spaces.Box(0, 1, (2,), np.float32) if why == "other spaces" else None
    config: ClientConfig = replace(FAST, reconnect_backoff_initial_s=600.0, reconnect_backoff_max_s=600.0)
    with PolicyClient(server.address, config=config, observation_space=space) as client:
        connection = connection_of(client)
        if why == "away":
            server.stop()
            hurry(client, 0.5)
        elif why == "a mistake of ours":
            monkeypatch.setattr(connection, "_open", lambda stream, session: 1 // 0)
            hurry(client, 0.5)
        elif why == "a break":
            server.servicer.lose_replies = 1
            episode = client.start_episode()

            def is_broken() -> bool:
                with pytest.raises((ServerUnavailableError, ActionTimeoutError)):
                    client.get_action(episode, ZEROS, timeout_s=0.3)
                return connection.trouble is not None

            wait_until(is_broken, "the end of the stream")
        else:
            with pytest.raises(Exception, match="space"):
                client.connect()
        if connection.trouble is None:
            with pytest.raises(ServerUnavailableError):
                client.connect()
        wait_until(lambda: connection.trouble is not None, "the failure")
        wait_until(lambda: streams.left == 0, "the end of its object")
        assert streams.begun == 1


PROGRAM = """
import os, sys, threading, time
import numpy as np
import grpc._channel as channel
from policyserver.client import ClientConfig, PolicyClient

handle_event, start = channel._handle_event, threading._start_new_thread

def slowly(event, state, deserialize):  # stands for a thread that loses the interpreter's lock while it holds that of its stream
    callbacks = handle_event(event, state, deserialize)
    if state.code is not None:
        time.sleep(0.02)
    return callbacks

starts = []

def once(*arguments):
    if threading.current_thread().name == "policy-client-reader":
        starts.append(1)
        if len(starts) == 3:  # the first of gRPC's own
            raise RuntimeError("can't start new thread")
    return start(*arguments)

channel._handle_event = slowly
if sys.argv[2] == "spoilt":
    threading._start_new_thread = once

def main():
    client = PolicyClient(sys.argv[1], config=ClientConfig(reconnect_backoff_initial_s=0.02))
    ids = client.start_episodes(4)
    for _ in range(5):
        client.get_actions(ids, np.zeros((4, 10), np.float32))
    if sys.argv[2] == "forked" and (child := os.fork()):
        assert os.waitpid(child, 0)[1] == 0
    if sys.argv[2] != "open":
        client.close()
    print("done", len(starts))

main()
"""


@pytest.mark.process
@pytest.mark.parametrize("how", ["closed", "open", "forked", "spoilt"])
def test_a_process_ends_whatever_its_streams_threads_do_then(server: ReferenceServer, how: str) -> None:
    command = [sys.executable, "-c", PROGRAM, server.address, how]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=200.0, check=False)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"it printed {error.stdout!r} and did not end")
    assert (done.returncode, done.stdout.startswith("done")) == (0, True), done.stderr[-2000:]


@pytest.mark.long
@pytest.mark.parametrize("number", range(4))
def test_a_thread_that_cannot_be_started_costs_one_attempt(
    server: ReferenceServer, fail_start: Callable[[int, str], list[int]], number: int
) -> None:
    """Two are tried, then gRPC starts its own two."""
    client = PolicyClient(server.address, config=FAST)
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    server.stop()
    wait_until(lambda: not connection_of(client).is_open, "the end of the stream")
    began = time.monotonic()
    seen = fail_start(number, READER)
    server.start()
    assert client.get_action(episode, ZEROS) == 1
    assert len(seen) > number
    client.close()
    assert time.monotonic() - began < FAST.action_timeout_s / 2
    assert not [thread for thread in threading.enumerate() if thread.name == READER]


@pytest.mark.long
def test_a_client_whose_reader_cannot_be_started_says_so_and_may_be_asked_again(
    server: ReferenceServer, connect: Callable[..., PolicyClient], fail_start: Callable[[int, str], list[int]]
) -> None:
    client = connect()
    fail_start(0, threading.current_thread().name)
    with pytest.raises(ServerUnavailableError, match=f"{server.address}: expected a thread for the connection, received none: can't start"):
        client.start_episode()
    client.get_action(client.start_episode(), ZEROS)


@pytest.mark.long
def test_a_runner_without_a_thread_is_taken_up_with_the_next_list(
    service: Service,
    connect_to: Callable[..., PolicyClient],
    fail_start: Callable[[int, str], list[int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    service[0].servicer.endpoints = [service[0].address]
    client = connect_to(service)
    client.connect()
    fail_start(0, READER)
    with caplog.at_level(logging.WARNING):
        service[0].tell(addresses(service))
        wait_until(lambda: "can't start new thread" in caplog.text, "the failure")
    assert connection_of(client).is_open
    assert len(connections_of(client)) == 1
    service[0].tell(addresses(service))
    wait_until(lambda: len(connections_of(client)) == 2 and connections_of(client)[1].is_open, "the second runner")
