"""Clients that nobody closes: those that are dropped, and those that a fork brings into another process."""

from __future__ import annotations

import gc
import json
import multiprocessing
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.client import ClientClosedError, PolicyClient
from tests.client.conftest import FAST
from tests.client.inner_parts import connection_of
from tests.client.reference_server import ReferenceServer
from tests.client.test_threads_share_a_stream import wait_until

ZEROS = np.zeros(10, np.float32)


def threads_of_clients() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "policy-client-reader"]


@pytest.mark.long
def test_thirty_clients_that_are_dropped_leave_no_thread_and_a_warning_each(server: ReferenceServer) -> None:
    before = set(threading.enumerate())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(30):
            client = PolicyClient(server.address, config=FAST)
            client.get_action(client.start_episode(), ZEROS)
        del client
        deadline = time.monotonic() + 120.0
        while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
            left.pop().join(0.1)
    left = set(threading.enumerate()) - before
    assert len(left) == 0, f"{len(left)} threads are left: {sorted(thread.name for thread in left)[:6]} ..."
    # Others may come from what earlier tests left to the collector.
    said = [str(each.message) for each in caught if each.category is ResourceWarning and "PolicyClient" in str(each.message)]
    assert said == [f"unclosed PolicyClient of {server.address}: close() it, or use it in a `with` block"] * 30
    wait_until(lambda: server.servicer.streams == 0)


@pytest.mark.long
def test_a_client_that_is_dropped_while_it_cannot_connect_leaves_no_thread(server: ReferenceServer) -> None:
    client = PolicyClient(server.address, config=FAST)
    client.start_episode()
    connection = connection_of(client)
    server.stop()
    wait_until(lambda: connection.trouble is not None)
    with pytest.warns(ResourceWarning, match="unclosed PolicyClient"):
        del client
    wait_until(lambda: not threads_of_clients())


@pytest.mark.long
def test_a_dropped_client_of_several_runners_ends_all_its_streams(server: ReferenceServer) -> None:
    with ReferenceServer() as second:
        for runner in (server, second):
            runner.servicer.endpoints = [server.address, second.address]
        client = PolicyClient(server.address, config=FAST)
        client.get_actions(client.start_episodes(2), np.zeros((2, 10)))
        with pytest.warns(ResourceWarning, match="unclosed PolicyClient"):
            del client
        wait_until(lambda: not threads_of_clients())


@pytest.mark.long
def test_a_client_in_a_cycle_is_ended_by_the_collector(server: ReferenceServer) -> None:
    client = PolicyClient(server.address, config=FAST)
    client.start_episode()
    client.itself = client  # type: ignore[attr-defined]
    del client
    with pytest.warns(ResourceWarning, match="unclosed PolicyClient"):
        gc.collect()
    wait_until(lambda: not threads_of_clients())


@pytest.mark.long
@pytest.mark.parametrize("is_used", [False, True])
def test_a_client_that_was_closed_or_never_used_is_dropped_without_a_word(
    server: ReferenceServer, connect: Callable[..., PolicyClient], is_used: bool
) -> None:
    client = PolicyClient(server.address, config=FAST)
    if is_used:
        client.start_episode()
        client.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del client
        gc.collect()


FORKING = """
import json, os, sys, threading, time
import numpy as np
from policyserver.client import ClientConfig, PolicyClient

zeros = np.zeros(10, np.float32)
client = PolicyClient(sys.argv[1], config=ClientConfig(action_timeout_s=200.0, connect_timeout_s=200.0))
ids = client.start_episodes(["one", "two"])
client.get_action("one", zeros)
stop = threading.Event()

def play():  # so that the fork finds the client's lock now held, now free
    while not stop.is_set():
        client.get_action("two", zeros)

busy = threading.Thread(target=play)
busy.start()
CALLS = {
    "start_episode": lambda: client.start_episode(),
    "start_episodes": lambda: client.start_episodes(3),
    "get_action": lambda: client.get_action("one", zeros),
    "get_actions": lambda: client.get_actions(["one"], zeros[None]),
    "log_action": lambda: client.log_action("one", zeros, 1),
    "log_actions": lambda: client.log_actions(["one"], zeros[None], [1]),
    "log_returns": lambda: client.log_returns("one", 1.0),
    "log_returns_batch": lambda: client.log_returns_batch(["one"], [1.0]),
    "end_episode": lambda: client.end_episode("one", zeros),
    "end_episodes": lambda: client.end_episodes(["one"], zeros[None]),
    "server_info": lambda: client.server_info(),
    "stats": lambda: client.stats(),
    "stats_by_endpoint": lambda: client.stats_by_endpoint(),
    "counters": lambda: client.counters(),
    "weights_seq_no": lambda: client.weights_seq_no,
}

def heard(call):
    said = ["nothing came back within 60 s"]

    def make():
        try:
            call()
            said[0] = "nothing was raised"
        except Exception as error:
            said[0] = f"{[cls.__name__ for cls in type(error).__mro__]} {error}"

    began = time.monotonic()
    calling = threading.Thread(target=make, daemon=True)
    calling.start()
    calling.join(60.0)
    return said[0], time.monotonic() - began

def child(end):
    report = {"process": os.getpid()}
    if sys.argv[2] == "calls":
        report["errors"] = {name: heard(call) for name, call in CALLS.items()}
    else:
        report["closed"] = heard(client.close)
    os.write(end, json.dumps(report).encode())

reports = []
for number in range(1 if sys.argv[2] == "calls" else 3):
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        try:
            child(writing)
        finally:
            if number or sys.argv[2] == "calls":
                os._exit(0)
            sys.exit(0)  # takes the interpreter apart, inherited client included
    os.close(writing)
    text = b""
    while part := os.read(reading, 65536):
        text += part
    assert os.waitpid(process, 0)[1] == 0
    reports.append(json.loads(text))
stop.set()
busy.join()
print(json.dumps({"process": os.getpid(), "reports": reports, "again": int(client.get_action("one", zeros))}))
client.close()
"""


def forked(server: ReferenceServer, what: str, timeout_s: float) -> dict[str, Any]:
    """Fork a program that has a client; what its children and itself have to say of it."""
    command = [sys.executable, "-c", FORKING, server.address, what]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=None, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


@pytest.mark.process
def test_each_call_of_a_client_that_was_forked_raises_at_once_and_names_both_processes(server: ReferenceServer) -> None:
    said = forked(server, "calls", 300.0)
    for report in said["reports"]:
        for name, (text, seconds) in report["errors"].items():
            assert f"belongs to process {said['process']}, and this is process {report['process']}, forked from it" in text, name
            assert ClientClosedError.__name__ in text
            assert seconds < 50.0, name
        assert len(report["errors"]) == 15


@pytest.mark.process
def test_a_client_that_was_forked_is_closed_without_a_word_and_the_one_it_is_of_plays_on(server: ReferenceServer) -> None:
    try:
        said = forked(server, "close", 200.0)
    except subprocess.TimeoutExpired:
        pytest.fail("close() of the forked client did not return")
    for report in said["reports"]:
        text, seconds = report["closed"]
        assert (text, seconds < 50.0) == ("nothing was raised", True)
    assert said["again"] == 7 % 3
    assert len(server.servicer.clients) == 1


@pytest.mark.process
def test_a_process_that_was_spawned_beside_an_open_client_plays_with_one_of_its_own(server: ReferenceServer) -> None:
    with PolicyClient(server.address, config=FAST) as client:
        episode = client.start_episode()
        client.get_action(episode, ZEROS)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert pool.map(first_action, [server.address] * 2) == [0, 0]
            pool.close()
            pool.join()
        assert client.get_action(episode, ZEROS) == 1
    assert len(server.servicer.clients) == 3


def first_action(address: str) -> int:
    with PolicyClient(address, config=FAST) as client:
        return int(client.get_action(client.start_episode(), ZEROS))
