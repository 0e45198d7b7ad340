"""Nobody spins while there is nothing to do: processor time of all processes of a server, before the first client and after the last.

What a process uses of the processor is the same beside other tests, so these servers do not run with the tests that hold times: five that
start together take the processors for half a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from benchmarks.learning.cases import case_of
from benchmarks.learning.over_grpc import processes_of
from policyserver.client import PolicyClient
from policyserver.common.settings import dump_toml
from tests.live_server import serving

SHARE_MAX = 0.3
"""Of one core, all processes together: Ray's own six take 0.1 by themselves on a slow machine, a thread that spins takes 1."""
SPAN_S = 5.0
WINDOWS = 4
"""So many times it is measured at most, for a server that has just started still tidies up."""


def share_used(processes: dict[psutil.Process, str], seconds: float) -> dict[str, float]:
    """Return the share of a core that each process uses in the next seconds."""

    def used_s() -> dict[psutil.Process, float]:
        return {process: sum(process.cpu_times()[:2]) for process in processes}

    began, before = time.monotonic(), used_s()
    time.sleep(seconds)  # nothing is to happen, so there is no event to wait for
    elapsed_s, after = time.monotonic() - began, used_s()
    return {f"{process.pid} {name}": (after[process] - before[process]) / elapsed_s for process, name in processes.items()}


def least_share_used(processes: dict[psutil.Process, str], seconds: float) -> dict[str, float]:
    """Return the shares of the first span of time in which they are within the limit together, or else of the last one."""
    used: dict[str, float] = {}
    for _ in range(WINDOWS):
        used = share_used(processes, seconds)
        if sum(used.values()) < SHARE_MAX:
            break
    return used


def play(address: str, environment: str, playing: dict[str, int]) -> None:
    """Play in a process of its own, as an application would."""
    command = [sys.executable, "-m", "benchmarks.learning.player", address, environment, json.dumps(playing)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True)


def shares_of(algorithm: str, folder: Path, together: threading.Barrier) -> dict[str, dict[str, float]]:
    """Return the shares that a server's processes used before its first client and after the last; the servers do each step together."""
    case = case_of(algorithm)
    soon = {"algorithm.reporting": {"min_time_s_per_iteration": 1}, "episodes.episode_idle_timeout_s": 5.0}
    folder.mkdir()
    try:
        with serving(dump_toml(case.server_config(0, **soon)), folder) as server:
            together.wait()
            before = least_share_used(processes_of(server.process), SPAN_S)
            together.wait()
            play(server.address, case.environment, {"copies": case.copies, "max_steps": 400})
            with PolicyClient(server.address) as client:
                while client.stats().episodes_open:
                    time.sleep(0.1)
            together.wait()
            after = least_share_used(processes_of(server.process), SPAN_S)
            together.wait()
    except BaseException:
        together.abort()
        raise
    return {f"{algorithm} before the first client": before, f"{algorithm} after the last": after}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_server_of_any_algorithm_is_idle_without_clients_and_still_there(tmp_path: Path) -> None:
    """All servers are up at the same time, for they take longer to start than to be measured."""
    algorithms = ["PPO", "APPO", "IMPALA", "DQN", "SAC"]
    together = threading.Barrier(len(algorithms))
    with ThreadPoolExecutor(len(algorithms)) as threads:
        running = [threads.submit(shares_of, algorithm, tmp_path / algorithm, together) for algorithm in algorithms]
    failed = [error for future in running if (error := future.exception())]
    assert not [error for error in failed if not isinstance(error, threading.BrokenBarrierError)], failed
    shares = {when: used for future in running for when, used in future.result().items()}
    (tmp_path / "shares.json").write_text(json.dumps(shares, indent=1), encoding="utf-8")
    for when, used in shares.items():
        assert sum(used.values()) < SHARE_MAX, f"{when}: {used}"
