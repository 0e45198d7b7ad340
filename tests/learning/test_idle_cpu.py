"""Nobody spins while there is nothing to do: processor time of all processes of a server, before the first client and after the last."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.learning.cases import case_of
from benchmarks.learning.over_grpc import processes_of
from benchmarks.learning.player import play
from benchmarks.learning.playing import Playing
from policyserver.client import PolicyClient
from policyserver.common.settings import dump_toml
from tests.live_server import serving

pytestmark = pytest.mark.alone

SHARE_MAX = 0.3
"""Of one core, all processes together: Ray's own six take 0.1 by themselves on a slow machine, a thread that spins takes 1."""
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


def check_idle(algorithm: str, folder: Path, seconds: float) -> None:
    case = case_of(algorithm)
    soon = {"algorithm.reporting": {"min_time_s_per_iteration": 1}, "episodes.episode_idle_timeout_s": 5.0}
    config = case.server_config(0, **soon)
    with serving(dump_toml(config), folder) as server:
        family = processes_of(server.process)
        shares = {"before the first client": least_share_used(family, seconds)}
        play(server.address, case.environment, Playing(case.copies, max_steps=400))
        with PolicyClient(server.address) as client:
            while client.stats().episodes_open:
                time.sleep(0.1)
        family = processes_of(server.process)
        shares["after the last"] = least_share_used(family, seconds)
        (folder / "shares.json").write_text(json.dumps(shares, indent=1), encoding="utf-8")
        for when, used in shares.items():
            assert sum(used.values()) < SHARE_MAX, f"{when}: {used}"


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("algorithm", ["PPO", "APPO", "IMPALA", "DQN", "SAC"])
def test_a_server_of_any_algorithm_is_idle_without_clients_and_still_there(algorithm: str, tmp_path: Path) -> None:
    check_idle(algorithm, tmp_path, 5.0)
