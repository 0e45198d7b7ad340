"""A daemon learns on through its actor's death and its own, stops when told to, and keeps its port and folder to itself."""

from __future__ import annotations

import contextlib
import json
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from policyserver.client import ClientConfig, PolicyClient, TrainingIteration
from policyserver.common.errors import EpisodeLostError, PolicyServerError
from policyserver.monitoring.store.reader import StoreReader
from policyserver.server.config.algorithm_defaults import DEFAULTS_BY_ALGORITHM
from policyserver.server.config.daemon_config import LearnerConfig
from tests.integration.daemon_process import DaemonProcess
from tests.ports import free_address, is_handed_out, port_of_the_systems_choice
from tests.services import wait_until

pytestmark = pytest.mark.alone

SMALL = (
    "--algorithm.training",
    "{train_batch_size_per_learner = 200, minibatch_size = 100, num_epochs = 2}",
    "--checkpoints.every_iterations",
    "2",
)
DRAIN = ("--learner.drain_timeout_s", "200")
STOP_S = 60.0
"""A stop takes two seconds, many times that beside other work; one that waits for the end of the drain takes longer than this."""
PATIENT = ClientConfig(action_timeout_s=200.0, connect_timeout_s=200.0)
TURNS = 4
"""So often a restart is measured beside a start at most, for the machine's speed is not the same from one to the other."""


def play(client: PolicyClient, until: Callable[[], bool], timeout_s: float = 200.0) -> None:
    """Play episodes, 50 at a time, until a condition holds; an episode that a restart cost is replaced by a new one."""
    rng = np.random.default_rng(0)
    deadline = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < deadline, "the condition was not reached"
        try:
            episodes = client.start_episodes(50)
            for _ in range(5):
                client.get_actions(episodes, rng.normal(size=(50, 10)).astype(np.float32))
                client.log_returns_batch(episodes, np.ones(50))
            client.end_episodes(episodes, np.zeros((50, 10), np.float32))
        except PolicyServerError:
            continue


def training(client: PolicyClient) -> TrainingIteration | None:
    try:
        return client.stats().training
    except PolicyServerError:
        return None


def session_niceness(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])
    except FileNotFoundError:
        return None


def reached(client: PolicyClient, iteration: int) -> Callable[[], bool]:
    return lambda: (newest := training(client)) is not None and newest.iteration >= iteration


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_server_learns_through_the_death_of_its_actor_and_of_its_daemon(tmp_path: Path) -> None:
    run_folder, address = tmp_path / "run", free_address()
    with PolicyClient(address, config=PATIENT) as client:
        started_at = time.monotonic()
        with DaemonProcess(run_folder, address, *SMALL) as daemon:
            daemon.wait_ready()
            start_s = time.monotonic() - started_at
            if (learner := session_niceness(daemon.process.pid)) is not None:  # a kernel that groups processes by session
                assert (learner, session_niceness(daemon.actor().pid)) == (LearnerConfig().niceness, 0)
            play(client, reached(client, 3))
            boot_id, version = client.server_info().boot_id, client.weights_seq_no

            # The actor dies. Another one serves on the same port, with the trained weights, not with fresh ones.
            episode = client.start_episode()
            client.get_action(episode, np.zeros(10, np.float32))
            daemon.actor().kill()
            killed_at = time.monotonic()
            with pytest.raises(EpisodeLostError):
                client.get_action(episode, np.zeros(10, np.float32))
            assert client.server_info().boot_id != boot_id
            assert time.monotonic() - killed_at < max(15.0, 2.0 * start_s), "it starts neither Ray nor the daemon again"
            client.get_action(client.start_episode(), np.zeros(10, np.float32))
            assert client.weights_seq_no >= version
            play(client, reached(client, 6))
            assert "were restarted: their open episodes" in daemon.text()

            # The daemon dies. Its successor has the port, the newest whole checkpoint, and its counters.
            saved = json.loads(sorted(run_folder.glob("checkpoints/checkpoint-*"))[-1].joinpath("manifest.json").read_text())["progress"]
            daemon.kill()
            killed_at = time.monotonic()
        with DaemonProcess(run_folder, address, *SMALL, *DRAIN) as daemon:
            daemon.wait_ready()
            restart_s = time.monotonic() - killed_at
            assert client.stats().weights_seq_no >= saved["weights_seq_no"] >= 6
            play(client, reached(client, saved["iteration"] + 2))
            newest = training(client)
            assert newest is not None
            assert newest.steps_total >= saved["steps_total"] + 400
            assert newest.learner_updates >= saved["learner_updates"] + 2
            assert newest.loss is not None
            assert newest.kl is not None
            assert newest.learning_rate == pytest.approx(DEFAULTS_BY_ALGORITHM["PPO"]["training"]["lr"])
            assert newest.entropy is not None
            assert 0.0 < newest.entropy <= np.log(3)
            assert newest.return_mean == pytest.approx(5.0)

            # How serving goes is recorded, too, once a second.
            boot_id, deadline = client.server_info().boot_id, time.monotonic() + 90.0
            with contextlib.closing(StoreReader(run_folder / "store.sqlite")) as reader:
                while not any(point["boot_id"] == boot_id and point["actions"] > 0 for point in reader.newest("server", "run")):
                    assert time.monotonic() < deadline
                    time.sleep(0.1)

            # SIGTERM ends it in order, though another signal comes with it: a last checkpoint, status 0.
            asked_at = time.monotonic()
            daemon.process.send_signal(signal.SIGHUP)
            assert daemon.terminate() == 0, daemon.text()
            assert time.monotonic() - asked_at < STOP_S
        last = json.loads(sorted(run_folder.glob("checkpoints/checkpoint-*"))[-1].joinpath("manifest.json").read_text())["progress"]
        assert last["iteration"] >= newest.iteration
    assert f"iteration {newest.iteration}   policy version" in (run_folder / "server.log").read_text()
    assert not (run_folder / "ray").exists()
    store = StoreReader(run_folder / "store.sqlite")
    (recorded,) = store.newest("train", "run", limit=1)
    store.close()
    assert recorded["iteration"] >= newest.iteration
    pairs = [(start_s, restart_s)]
    while pairs[-1][1] > 1.5 * pairs[-1][0] + 3.0 and len(pairs) < TURNS:
        pairs.append((seconds_to_ready(tmp_path / f"fresh-{len(pairs)}"), seconds_to_ready(run_folder, of_a_killed_one=True)))
    start_s, restart_s = pairs[-1]
    assert restart_s < 1.5 * start_s + 3.0, f"the successor serves about as soon as a first daemon: {pairs}"


def seconds_to_ready(run_folder: Path, *, of_a_killed_one: bool = False) -> float:
    """Return how long a daemon takes that is the first of its run folder, or the successor of one that is killed, its end included."""
    address = free_address()
    if of_a_killed_one:
        with DaemonProcess(run_folder, address, *SMALL) as daemon:
            daemon.wait_ready()
            daemon.kill()
    with DaemonProcess(run_folder, address, *SMALL) as daemon:
        seconds = daemon.wait_ready()
        daemon.terminate()
    return seconds


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_server_without_clients_stops_at_once_and_keeps_port_and_folder_to_itself(tmp_path: Path) -> None:
    run_folder, address, page = tmp_path / "run", free_address(), free_address()
    run_folder.mkdir()
    (run_folder / "store.sqlite").write_bytes(b"what a failing disk made of it" * 1000)
    with DaemonProcess(run_folder, address, "--recording.page", page, *DRAIN) as daemon:
        daemon.wait_ready()
        assert "it was put aside as" in daemon.text(), "what was recorded there can't be read, and serving goes on"
        deadline, runs = time.monotonic() + 90.0, list[str]()
        while runs != ["run"]:  # the counters of serving come once a second
            assert time.monotonic() < deadline, runs
            with urllib.request.urlopen(f"http://{page}/snapshot", timeout=10.0) as answer:
                runs = json.load(answer)["choices"]["runs"]
        assert "INFO policyserver.server.runner.serving_loop: serving" in (run_folder / "server.log").read_text(), (
            "the serving actor logs there, too"
        )
        with DaemonProcess(tmp_path / "other", address) as second:
            assert second.process.wait(200.0) == 1
            assert f"{address} is in use by another process" in second.text()
        with DaemonProcess(run_folder, free_address()) as third:
            assert third.process.wait(200.0) == 1
            assert f"{run_folder}: in use by process " in third.text()
        used = daemon_cpu_s(daemon)
        time.sleep(2.0)
        assert daemon_cpu_s(daemon) - used < 1.0, "a server without clients must not burn the processor"
        asked_at = time.monotonic()
        assert daemon.terminate() == 0, daemon.text()
        assert time.monotonic() - asked_at < STOP_S
    assert "iteration 1 " not in daemon.text()
    assert not list(run_folder.glob("checkpoints/checkpoint-*")), "nothing was learned, so there is nothing to save"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("drain_timeout_s", [*(pytest.param(drain_s, marks=pytest.mark.slow) for drain_s in (15.0, 2.0)), 0.1])
def test_a_server_that_is_told_to_stop_while_it_starts_leaves_without_serving(tmp_path: Path, drain_timeout_s: float) -> None:
    """The shortest time is over in the middle of a step of the start, which is then broken off, the next while Ray is ended."""
    run_folder = tmp_path / "run"
    with DaemonProcess(run_folder, free_address(), "--learner.drain_timeout_s", str(drain_timeout_s)) as daemon:
        wait_until(lambda: (run_folder / "ray" / "ray").exists(), "it begins to start Ray", 200.0)
        children = psutil.Process(daemon.process.pid).children(recursive=True)
        assert daemon.terminate() == 0, daemon.text()
        assert not psutil.wait_procs(children, timeout=60.0)[1], "what it had started is gone"
        assert "Traceback" not in daemon.text()
        assert "SIGTERM: still starting" in daemon.text()
        assert "stopped before it was ready" in daemon.text()
        assert "serving on" not in daemon.text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nobody_gets_the_port_of_a_server_that_starts_neither_rays_processes_nor_a_second_server(tmp_path: Path) -> None:
    run_folder, port = tmp_path / "run", port_of_the_systems_choice()
    with DaemonProcess(run_folder, f"127.0.0.1:{port}") as daemon:
        wait_until(lambda: (run_folder / "ray" / "ray").exists(), "it begins to start Ray", 200.0)
        assert not is_handed_out(port)
        with DaemonProcess(tmp_path / "other", f"127.0.0.1:{port}") as second:
            wait_until(lambda: second.process.poll() is not None or (tmp_path / "other" / "ray" / "ray").exists(), "it says so", 200.0)
            assert second.process.poll() == 1, "it is refused before it starts Ray, not when it wants to listen"
            assert f"127.0.0.1:{port} is in use by another process" in second.text()
        assert daemon.terminate() == 0, daemon.text()
    assert is_handed_out(port)


def daemon_cpu_s(daemon: DaemonProcess) -> float:
    """Return the processor time of the daemon and its serving actor."""
    times = [process.cpu_times() for process in (psutil.Process(daemon.process.pid), daemon.actor())]
    return float(sum(spent.user + spent.system for spent in times))
