"""Threads that each step one episode and block in `get_action`, in one client process or in several at once."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from array import array
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np

from benchmarks.speed.loads.figures import Latencies, observations, summary, warm_up_s
from benchmarks.speed.loads.real_time import REAL_TIME
from policyserver.client import ClientConfig, PolicyClient

TOGETHER_TIMEOUT_S = 120.0
WATCH_INTERVAL_S = 0.25

_together: Barrier | None = None


def threads(
    address: str,
    *,
    callers: int,
    seconds: float,
    episode_steps: int,
    training: bool,
    processes: int = 1,
    timeline: bool = False,
    one_core: bool = False,
) -> dict[str, Any]:
    """Step one episode per thread; the threads of a process share one client.

    Args:
        address: Of the server.
        callers: Threads of each process.
        seconds: Length of the measured window.
        episode_steps: Steps of an episode.
        training: Whether the steps are trained on.
        processes: Client processes at once; they begin together.
        timeline: Whether to add the p99 of each second and the times at which new weights were served.
        one_core: Whether the callers of a client share a core (`ClientConfig.callers_core`); Linux only.
    """
    config = replace(REAL_TIME, callers_core=max(os.sched_getaffinity(0)) if one_core else None)
    options = (address, config, callers, seconds, episode_steps, training)
    updates_s: list[float] = []
    if processes == 1:
        stop = threading.Event()
        watching = threading.Thread(target=_watch_updates, args=(address, warm_up_s(seconds), stop, updates_s))
        if timeline:
            watching.start()
        try:
            parts = [_play(*options)]
        finally:
            stop.set()
            if timeline:
                watching.join()
    else:
        context = multiprocessing.get_context("spawn")
        with context.Pool(processes, _meet_at, (context.Barrier(processes),)) as pool:
            parts = pool.starmap(_play_together, [options] * processes, chunksize=1)
    asked, taken = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    found = summary(taken, len(taken) / seconds) | {"actions_total": sum(part[2] for part in parts)}
    return found | ({"timeline": _timeline(asked, taken) | {"updates_s": updates_s}} if timeline else {})


def _play(
    address: str, config: ClientConfig, callers: int, seconds: float, episode_steps: int, training: bool
) -> tuple[Latencies, Latencies, int]:
    """Return when each call of the window began, ns since its begin, how long it took, ns, and the number of all calls."""
    began = [array("q") for _ in range(callers)]
    took = [array("q") for _ in range(callers)]
    totals = [0] * callers
    failures: list[BaseException] = []
    begin = time.perf_counter_ns() + int(warm_up_s(seconds) * 1e9)
    end = begin + int(seconds * 1e9)

    def caller(client: PolicyClient, number: int) -> None:
        rows = observations(client, 256, number)
        step = 0
        try:
            while True:
                episode = client.start_episode(training_enabled=training)
                for _ in range(episode_steps):
                    asked = time.perf_counter_ns()
                    if asked >= end:
                        client.end_episode(episode, rows[0], truncated=True)
                        return
                    client.get_action(episode, rows[step % 256])
                    if asked >= begin:
                        took[number].append(time.perf_counter_ns() - asked)
                        began[number].append(asked - begin)
                    client.log_returns(episode, 1.0)
                    step += 1
                    totals[number] = step
                client.end_episode(episode, rows[0])
        except BaseException as error:
            failures.append(error)

    with PolicyClient(address, config=config) as client:
        running = [threading.Thread(target=caller, args=(client, number)) for number in range(callers)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    if failures:
        raise failures[0]
    return _joined(began), _joined(took), sum(totals)


def _joined(parts: list[array[int]]) -> Latencies:
    return np.concatenate([np.frombuffer(part, np.int64) if part else np.empty(0, np.int64) for part in parts])


def _meet_at(barrier: Barrier) -> None:
    global _together
    _together = barrier


def _play_together(*options: Any) -> tuple[Latencies, Latencies, int]:
    """Play once every process is there: a process waits here with its first task, so none takes two."""
    assert _together is not None, "the process pool was made without its barrier"
    _together.wait(TOGETHER_TIMEOUT_S)
    return _play(*options)


def _watch_updates(address: str, before_s: float, stop: threading.Event, updates_s: list[float]) -> None:
    """Note when new weights are first seen, seconds since the begin of the window."""
    begin = time.perf_counter() + before_s
    with PolicyClient(address, config=REAL_TIME) as client:
        newest = client.stats().weights_seq_no
        while not stop.wait(WATCH_INTERVAL_S):
            served = client.stats().weights_seq_no
            if served != newest and time.perf_counter() >= begin:
                updates_s.append(time.perf_counter() - begin)
            newest = served


def _timeline(asked_ns: Latencies, taken_ns: Latencies) -> dict[str, list[float]]:
    """Return for each second in which calls began their p99 and their longest."""
    seconds = asked_ns // 1_000_000_000
    order = np.argsort(seconds, kind="stable")
    present, firsts = np.unique(seconds[order], return_index=True)
    groups = np.split(taken_ns[order], firsts[1:])
    return {
        "second": present.tolist(),
        "p99_ms": [float(np.percentile(group, 99)) / 1e6 for group in groups],
        "max_ms": [float(group.max()) / 1e6 for group in groups],
    }
