"""The programs in examples/, run as the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import PolicyClient
from tests.live_server import Serving, serving

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`policy-server serve` with the example's own configuration, on a free port and in a folder of its own."""
    config = (EXAMPLES / "cartpole_server.toml").read_text(encoding="utf-8")
    with serving(config.replace('run_folder = "runs/cartpole"\n', ""), tmp_path_factory.mktemp("cartpole")) as running:
        yield running


def test_the_cartpole_client_plays_and_the_server_learns_from_it(server: Serving) -> None:
    command = [sys.executable, str(EXAMPLES / "cartpole_client.py"), "--address", server.address, "--episodes", "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^ +(\d+) episodes   mean return +([\d.]+)   policy version +(\d+)   0 lost$", done.stdout, re.MULTILINE)
    assert [int(episodes) for episodes, _, _ in lines] == [50, 100, 150, 200, 250, 300], done.stdout
    assert int(lines[-1][2]) >= 1, "the policy was updated while it was used"
    with PolicyClient(server.address) as client:
        stats = client.stats()
    assert stats.episodes_finished == 300
    assert stats.episodes_open == 0
    assert stats.reward_sum == stats.steps_completed, "CartPole gives 1 for each step"
