"""The programs in examples/, run as they stand."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyserver.client import PolicyClient
from tests.live_server import Serving, serving
from tests.services import wait_until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`policy-server serve` with the example's own configuration, on a free port and in a folder of its own."""
    config = (EXAMPLES / "cartpole_server.toml").read_text(encoding="utf-8")
    with serving(config.replace('run_folder = "runs/cartpole"\n', ""), tmp_path_factory.mktemp("cartpole")) as running:
        yield running


def test_the_cartpole_client_plays_and_the_server_learns_from_it(server: Serving) -> None:
    command = [sys.executable, str(EXAMPLES / "cartpole_client.py"), "--address", server.address, "--episodes", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^ +(\d+) episodes   mean return +([\d.]+)   policy version +(\d+)   0 lost$", done.stdout, re.MULTILINE)
    assert [int(episodes) for episodes, _, _ in lines] == list(range(50, 201, 50)), done.stdout
    versions = [int(version) for _, _, version in lines]
    assert versions == sorted(versions)
    with PolicyClient(server.address) as client:
        wait_until(lambda: client.stats().weights_seq_no >= max(1, versions[-1]), "an update on the steps that were played", 200.0)
        stats = client.stats()
    assert stats.episodes_finished == 200
    assert stats.episodes_open == 0
    assert stats.reward_sum == stats.steps_completed, "CartPole gives 1 for each step"


def test_a_net_a_connector_and_a_callback_of_ones_own_serve_and_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    config = (EXAMPLES / "own_net.toml").read_text(encoding="utf-8")
    with serving(config.replace('run_folder = "runs/own_net"\n', ""), tmp_path) as running:
        command = [sys.executable, str(EXAMPLES / "cartpole_client.py"), "--address", running.address, "--episodes", "150"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr
        with PolicyClient(running.address) as client:
            assert client.stats().episodes_finished == 150
            wait_until(lambda: client.stats().weights_seq_no >= 1, "an update on the steps that were played", 200.0)
            log = tmp_path / "run" / "server.log"
            wait_until(lambda: "the best mean return so far" in log.read_text(errors="replace"), "the callback", 90.0)


def test_an_external_env_that_asks_for_its_own_actions_learns(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "own_external_env.py"), "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    steps = [int(number.replace(",", "")) for number in re.findall(r"^ *([\d,]+) steps   mean return +[\d.]+$", done.stdout, re.MULTILINE)]
    assert steps, done.stdout
    assert all(later - earlier >= 1000 for earlier, later in itertools.pairwise([0, *steps]))
