"""The example of a trading server serves, trains, prints and saves, and goes on from its last checkpoint when it is started again."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from policyserver.client import ClientConfig, PolicyClient
from tests.ports import free_address

EXAMPLE = Path(__file__).parents[2] / "examples" / "trading_server.py"


@contextmanager
def running(folder: Path, address: str) -> Iterator[list[str]]:
    """Run the example in a folder; yields the lines it has printed so far, and ends it with Ctrl-C."""
    command = [sys.executable, str(EXAMPLE), address.rpartition(":")[2]]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    lines: list[str] = []
    assert process.stdout is not None
    stdout = process.stdout
    reader = threading.Thread(target=lambda: lines.extend(stdout), daemon=True)
    reader.start()
    try:
        yield lines
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, "".join(lines)
    except BaseException:
        sys.stderr.write("".join(lines))
        raise
    finally:
        process.kill()
        process.wait()
        reader.join()
        stdout.close()


def play_until_printed(client: PolicyClient, lines: list[str], text: str, count: int, timeout_s: float = 200.0) -> None:
    """Play episodes until the example has printed a text so many times."""
    rng = np.random.default_rng(0)
    deadline = time.monotonic() + timeout_s
    while sum(text in line for line in list(lines)) < count:
        assert time.monotonic() < deadline, f"{text!r} was not printed"
        if client.stats().steps_waiting > 1000:  # the learner has its next batch; more would only wait
            time.sleep(0.05)
            continue
        episodes = client.start_episodes(20)
        for _ in range(10):
            actions = client.get_actions(episodes, rng.normal(size=(20, 10)).astype(np.float32))
            assert set(np.asarray(actions).tolist()) <= {0, 1, 2}
            client.log_returns_batch(episodes, np.ones(20))
        client.end_episodes(episodes, np.zeros((20, 10), np.float32))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_seeds_program_serves_trains_prints_saves_and_goes_on_where_it_left_off(tmp_path: Path) -> None:
    address = free_address()
    config = ClientConfig(connect_timeout_s=200.0)
    with running(tmp_path, address) as lines, PolicyClient(f"http://{address}", config=config) as client:
        play_until_printed(client, lines, "saved ", 2)
        assert any("episode_return_mean: 10.0" in line for line in lines)
    last = (tmp_path / "last_checkpoint.out").read_text()
    assert Path(last).is_dir()

    with running(tmp_path, address) as lines, PolicyClient(f"http://{address}", config=config) as client:
        play_until_printed(client, lines, "saved ", 1)
        assert f"restored {last}\n" in lines
        assert client.weights_seq_no >= 2
    assert Path((tmp_path / "last_checkpoint.out").read_text()).name > Path(last).name
