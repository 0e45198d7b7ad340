"""`callers_core` binds callers and the client's own threads, no others, and is refused at once if the core can't be had."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from policyserver.client import ClientConfig, PolicyClient
from policyserver.client.shared import ProcessorCore
from tests.client.conftest import FAST

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="binds threads by sched_setaffinity(2)")

ZEROS = np.zeros(10, np.float32)


def threads_on(cores: set[int]) -> set[int]:
    """Return the ids of this process's threads that may run on these cores alone."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            found |= {int(task)} if os.sched_getaffinity(int(task)) == cores else set()
    return found


def step_in_a_thread(client: PolicyClient) -> set[int]:
    """Take a step in a thread of its own; return where it may run afterwards."""

    def step() -> set[int]:
        client.get_action(client.start_episode(), ZEROS)
        return os.sched_getaffinity(0)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(step).result()


@pytest.mark.long
def test_callers_and_the_clients_own_threads_share_the_core_and_nobody_else(connect: Callable[..., PolicyClient]) -> None:
    everywhere = os.sched_getaffinity(0)
    if len(everywhere) == 1:
        pytest.skip("this machine has one core")
    core = max(everywhere)
    before = threads_on({core})
    client = connect(dataclasses.replace(FAST, callers_core=core))
    assert step_in_a_thread(client) == {core}
    own = {thread.name for thread in threading.enumerate() if thread.native_id in threads_on({core}) - before}
    assert {"policy-client-reader"} < own, "who receives and, in a thread of gRPC's, who sends"
    assert os.sched_getaffinity(0) == everywhere, "a thread that did not wait for an answer stays free"


@pytest.mark.long
def test_without_a_core_everybody_stays_where_the_system_puts_them(client: PolicyClient) -> None:
    before, everywhere = threads_on({max(os.sched_getaffinity(0))}), os.sched_getaffinity(0)
    assert step_in_a_thread(client) == everywhere
    assert threads_on({max(everywhere)}) <= before or len(everywhere) == 1


@pytest.mark.long
def test_a_core_that_was_taken_away_since_is_no_reason_to_fail(
    connect: Callable[..., PolicyClient], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    absent = max(os.sched_getaffinity(0)) + 1000
    with monkeypatch.context() as had:
        had.setattr(os, "sched_setaffinity", lambda *_: None)
        client = connect(dataclasses.replace(FAST, callers_core=absent))
    with caplog.at_level(logging.WARNING):
        assert step_in_a_thread(client) == os.sched_getaffinity(0)
    assert f"callers_core: core {absent} cannot be had any more" in caplog.text


def test_a_core_that_cannot_be_had_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"callers_core: expected a core that this process may use, received 9999: \[Errno"):
        PolicyClient("127.0.0.1:9900", config=ClientConfig(callers_core=9999))
    with pytest.raises(ValueError, match="callers_core: expected at least 0 or none, received -1"):
        ClientConfig(callers_core=-1)


@pytest.mark.process
def test_a_thread_that_one_client_bound_may_make_another_on_another_core(connect: Callable[..., PolicyClient]) -> None:
    first, *_, last = (*sorted(os.sched_getaffinity(0)),) * 2

    def use_both() -> list[set[int]]:
        bound = []
        for core in (first, last):
            client = connect(dataclasses.replace(FAST, callers_core=core))
            client.get_action(client.start_episode(), ZEROS)
            bound.append(os.sched_getaffinity(0))
        return bound

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(use_both).result() == [{first}, {last}]


def test_systems_without_it_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ValueError, match="expected None on darwin, which binds no threads, received 0"):
        ProcessorCore(0)
