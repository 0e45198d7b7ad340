"""Threads of one client share a stream and travel in common messages; a lone caller waits for none, and closing wakes all who wait."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from policyserver.client import ClientClosedError, PolicyClient, SequenceError
from tests.client.reference_server import ReferenceServer

ZEROS = np.zeros(10, np.float32)


@pytest.mark.long
def test_64_threads_share_one_stream_and_travel_together(server: ReferenceServer, client: PolicyClient) -> None:
    steps = 20
    ready = threading.Barrier(64)

    def run(number: int) -> float:
        episode = client.start_episode(f"episode-{number}")
        ready.wait()
        total = 0.0
        for step in range(steps):
            assert client.get_action(episode, np.full(10, number, np.float32)) == 7 * step % 3
            client.log_returns(episode, number + step)
            total += number + step
        client.end_episode(episode, ZEROS)
        return total

    with ThreadPoolExecutor(64) as pool:
        totals = list(pool.map(run, range(64)))
    assert list(server.servicer.clients.values()) == [1]
    for number, total in enumerate(totals):
        served = server.servicer.episodes[f"episode-{number}"]
        assert sum(served.rewards) == total
        assert [row[0] for row in served.observations[:steps]] == [number] * steps
    assert sum(server.servicer.message_rows) == 64 * (steps + 1)
    assert len(server.servicer.message_rows) < 64 * (steps + 1) / 2


@pytest.mark.long
def test_a_lone_caller_waits_for_nobody(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    for _ in range(10):
        client.get_action(episode, ZEROS)
    assert server.servicer.message_rows == [1] * 10


@pytest.mark.long
def test_what_is_asked_while_two_messages_are_unanswered_goes_out_in_one(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(12)
    server.hold()
    with ThreadPoolExecutor(12) as pool:
        first = [pool.submit(client.get_action, ids[0], ZEROS)]
        wait_until(lambda: server.servicer.message_rows == [1])
        first.append(pool.submit(client.get_action, ids[1], ZEROS))
        wait_until(lambda: client.counters().messages_sent == 2)
        rest = [pool.submit(client.get_action, episode, ZEROS) for episode in ids[2:]]
        wait_until(lambda: client.counters().rows_waiting == 10)
        server.release()
        assert [future.result() for future in first + rest] == [0] * 12
    assert server.servicer.message_rows == [1, 1, 10]


@pytest.mark.long
def test_two_calls_of_one_episode_at_once_are_refused(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    server.hold()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get_action, episode, ZEROS)
        wait_until(lambda: len(server.servicer.message_rows) == 1)
        with pytest.raises(SequenceError, match="another thread waits for its step 0"):
            client.get_action(episode, ZEROS)
        client.log_returns(episode, 1.0)
        server.release()
        assert waiting.result() == 0
    client.end_episode(episode, ZEROS)
    assert server.servicer.episodes[episode].rewards == [0.0, 1.0]


@pytest.mark.long
def test_close_wakes_every_thread_that_waits_and_leaves_none_of_ours(server: ReferenceServer, connect: Callable[..., PolicyClient]) -> None:
    before = set(threading.enumerate())
    client = connect()
    ids = client.start_episodes(8)
    server.hold()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(client.get_action, episode, ZEROS) for episode in ids]
        wait_until(lambda: client.counters().rows_sent + client.counters().rows_waiting == 8)
        client.close()
        for future in waiting:
            with pytest.raises(ClientClosedError, match="closed"):
                future.result(timeout=100.0)
    client.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(60.0)
        assert not thread.is_alive(), thread.name
    for call in (client.start_episode, client.stats, lambda: client.get_action(ids[0], ZEROS), lambda: client.log_returns(ids[0], 1.0)):
        with pytest.raises(ClientClosedError):
            call()


def test_close_without_a_call_is_enough_and_a_client_may_never_be_used() -> None:
    client = PolicyClient("127.0.0.1:1")
    client.close()
    client.close()
    with pytest.raises(ClientClosedError):
        client.start_episode()


@pytest.mark.process
def test_a_program_that_forgets_to_close_ends_anyway(server: ReferenceServer) -> None:
    program = f"""
import policyserver.client
c = policyserver.client.PolicyClient({server.address!r})
print(c.get_action(c.start_episode(), [0] * 10))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


@pytest.mark.process
def test_the_client_imports_neither_ray_nor_torch_nor_river() -> None:
    program = "import sys, policyserver.client; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=True)
    loaded = set(done.stdout.split())
    assert "policyserver.client.policy_client" in loaded
    assert not loaded & {"ray", "torch", "river", "policyserver.server", "policyserver.pipelines", "policyserver.monitoring"}


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something another thread does and tells nobody about."""
    deadline = time.monotonic() + 120.0
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 120 s"
        time.sleep(0.002)
