"""Learning over gRPC: `policy-server serve` in its processes, the environment in a client process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil

from benchmarks.learning.cases import OVER_GRPC, Case, Outcome
from benchmarks.learning.playing import Played, Playing
from policyserver.common.settings import dump_toml
from tests.live_server import serving

_SECONDS_MAX = 900.0


def learn(case: Case, seed: int, folder: Path) -> Outcome:
    """Serve and play until the bar is reached; every process of the server must be alive after it."""
    playing = Playing(
        case.copies, seed, case.window, stop_return=case.bar, max_steps=case.max_steps, max_seconds=_SECONDS_MAX, threads=case.threads
    )
    with serving(dump_toml(case.server_config(seed)), folder) as server:
        family = processes_of(server.process)
        played = play_apart(server.address, case.environment, playing)
        dead = [name for process, name in family.items() if not process.is_running()]
        assert not dead, f"processes of the server ended while the client played: {dead}"
    reached = played.mean_return >= case.bar
    return Outcome(OVER_GRPC, case.name, seed, played.steps, played.mean_return, played.seconds, reached)


def play_apart(address: str, environment: str, playing: Playing) -> Played:
    """Play in another process and return what it reports."""
    done = subprocess.run(player_command(address, environment, playing), stdout=subprocess.PIPE, text=True, check=True)
    return Played(**json.loads(done.stdout))


def player_command(address: str, environment: str, playing: Playing) -> list[str]:
    """Return the command of a client process."""
    options = {name: value for name, value in asdict(playing).items() if value != float("inf")}
    return [sys.executable, "-m", "benchmarks.learning.player", address, environment, json.dumps(options)]


def processes_of(serving_process: psutil.Process) -> dict[psutil.Process, str]:
    """Return the daemon above a serving actor and everything below the daemon, by what they are called."""
    daemon = next(process for process in [serving_process, *serving_process.parents()] if "serve" in process.cmdline())
    return {process: " ".join(process.cmdline())[:80] or process.name() for process in [daemon, *daemon.children(recursive=True)]}
