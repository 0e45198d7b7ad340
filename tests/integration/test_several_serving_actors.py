"""Two serving actors as one service: clients use both, and go on when one of them is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from policyserver.client import PolicyClient
from tests.commands import ctl_answer
from tests.integration.daemon_process import DaemonProcess
from tests.integration.episodes_player import STEPS, Episodes
from tests.ports import free_ports, listens

pytestmark = pytest.mark.alone

TWO_ACTORS = (
    "--algorithm.env_runners",
    "{num_env_runners = 2}",
    "--algorithm.training",
    "{train_batch_size_per_learner = 400, minibatch_size = 200, num_epochs = 2}",
)


@contextmanager
def players(count: int, address: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Run client processes with four episodes each; they end with their standard input."""
    command = [sys.executable, "-m", "tests.integration.episodes_player", address, "4"]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            with process:  # which closes its pipes
                process.kill()


def told_by(process: subprocess.Popen[str]) -> dict[str, int]:
    """Let a player end, and return what it says; one that does not end is told with what each of its threads waits for in the kernel."""
    try:
        return dict(json.loads(process.communicate(timeout=120)[0]))
    except subprocess.TimeoutExpired as error:
        threads = sorted(Path(f"/proc/{process.pid}/task").iterdir())
        waits = [f"{(each / 'comm').read_text().strip()}: {(each / 'wchan').read_text()}" for each in threads]
        pytest.fail(f"a player does not end; it said {error.stdout!r}, and its threads wait: {waits}")


def is_alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def play(episodes: Episodes, until: Callable[[], bool], timeout_s: float = 200.0) -> int:
    """Play until a condition holds, in rounds of whole episodes. Returns the steps."""
    deadline, before = time.monotonic() + timeout_s, episodes.steps
    while episodes.steps == before or not until():
        assert time.monotonic() < deadline, "the condition was not reached"
        for _ in range(STEPS):
            episodes.step(1.0)
        episodes.end()
    return episodes.steps - before


def both_work(client: PolicyClient) -> bool:
    actions = [stats.actions for stats in client.stats_by_endpoint().values()]
    return len(actions) == 2 and min(actions) > 400


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_clients_use_both_actors_and_go_on_when_one_is_killed(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(2)[0]}"
    with DaemonProcess(tmp_path / "run", address, *TWO_ACTORS) as daemon, PolicyClient(address) as client:
        start_s = daemon.wait_ready()

        def iteration() -> int:
            training = client.stats().training
            return training.iteration if training is not None else 0

        episodes = Episodes(client, 8)
        with players(2, address) as others:
            play(episodes, lambda: iteration() >= 2 and both_work(client))
            endpoints = client.server_info().endpoints
            before = client.stats_by_endpoint()
            assert tuple(before) == endpoints == (address, f"127.0.0.1:{int(address.rpartition(':')[2]) + 1}")

            # The actor at the clients' own address is killed, in the middle of their episodes.
            for _ in range(5):
                episodes.step(1.0)
            episodes.step(0.0)  # so that the last reward has arrived
            dead = client.stats_by_endpoint()[address]
            victim = daemon.actor(1)
            family = [psutil.Process(daemon.process.pid), *psutil.Process(daemon.process.pid).children(recursive=True)]
            family += [psutil.Process(process.pid) for process in others]
            family.remove(victim)
            assert daemon.actor(2) in family
            victim.kill()
            victim.wait(60)
            killed_at = time.monotonic()

            def waits_for_nobody() -> bool:
                return time.monotonic() - killed_at < 5.0 or not listens(daemon.process.pid, int(address.rpartition(":")[2]))

            # New episodes go to the other one meanwhile, which answers as before.
            late = Episodes(client, 2)
            while late.step():  # one that begins before the client knows is lost like the others
                pass
            assert waits_for_nobody()
            late.end()

            # The next step of all episodes finds those of the dead actor lost, and only those.
            assert episodes.step(1.0) == 4
            assert waits_for_nobody(), "nobody waits for the successor"

            def states() -> list[str]:
                told = ctl_answer(tmp_path / "run", "status")["serving_actors"]
                assert [(each["number"], each["addresses"]) for each in told] == [(1, [address]), (2, [endpoints[1]])], "also while away"
                return [each["state"] for each in told]

            assert states()[1] == "serving"
            reached = iteration()
            play(episodes, lambda: iteration() >= reached + 3)

            # The actor that takes its place is used like the other.
            play(episodes, lambda: len(client.stats_by_endpoint()) == 2)
            back_s, reached = time.monotonic() - killed_at, iteration()
            played = play(episodes, lambda: iteration() >= reached + 3)
            after = client.stats_by_endpoint()
            assert tuple(after) == endpoints
            back_at = time.monotonic()
            while states() != ["serving", "serving"]:  # which it reports once a second
                assert time.monotonic() - back_at < 90.0
            assert after[address].boot_id != dead.boot_id
            assert after[endpoints[1]].boot_id == before[endpoints[1]].boot_id
            assert after[address].actions > 0.25 * played
            assert episodes.lost == 4
            assert client.counters().episodes_lost == 4 + late.lost
            assert [process for process in family if not is_alive(process)] == []

            # Each reward that was logged arrived once, at one of the three processes.
            logged = episodes.steps - 8  # of which the step before the kill was logged with 0
            assert dead.reward_sum + sum(stats.reward_sum for stats in after.values()) == logged

            told = [told_by(process) for process in others]
        assert max(each["lost"] for each in told) <= 4, "half, and those that began before the client knew; none if all had just ended"
        assert min(each["steps"] for each in told) > 500
        assert daemon.terminate() == 0, daemon.text()
    assert back_s < max(30.0, 2.0 * start_s), f"the actor was back after {back_s:.1f} s"
