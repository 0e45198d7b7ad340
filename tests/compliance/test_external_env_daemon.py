"""`policy-server serve` with an existing ExternalEnv in its configuration: no client, no port."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests.integration.daemon_process import DaemonProcess
from tests.ports import free_address

CONFIG = """
[algorithm.environment]
env = "python:tests.compliance.external_envs.CartPoles"
env_config = { copies = 3 }
[spaces.observation]
type = "Box"
low = [-4.8, -inf, -0.41887903, -inf]
high = [4.8, inf, 0.41887903, inf]
shape = [4]
[spaces.action]
type = "Discrete"
n = 2
[algorithm.training]
train_batch_size_per_learner = 300
minibatch_size = 100
[algorithm.rl_module.model_config]
fcnet_hiddens = [16]
use_lstm = false
[checkpoints]
every_iterations = 1
"""


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has ended since
        return ""


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_daemon_trains_on_what_an_environment_plays_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root / 'proto'}")
    config = tmp_path / "server.toml"
    config.write_text(CONFIG, encoding="utf-8")
    for run in range(2):
        with DaemonProcess(tmp_path / "run", free_address(), "--config", str(config)) as daemon:
            deadline = time.monotonic() + 400.0
            while daemon.text().count("saved ") < 3:
                assert daemon.process.poll() is None, daemon.text()
                assert time.monotonic() < deadline, daemon.text()
                time.sleep(0.1)
            children = psutil.Process(daemon.process.pid).children(recursive=True)
            assert any("ExternalEnvRunner" in command_of(child) for child in children)
            assert daemon.terminate() == 0, daemon.text()
        text = daemon.text()
        assert "serving on what the environment opens" in text
        assert ("restored" in text) == (run == 1)
        assert "Traceback" not in text
        assert "were restarted" not in text, "the actor that played is the first one"
        # Ray's processes that the daemon leaves belong to init, which may take a while to collect what has ended.
        assert not psutil.wait_procs(children, timeout=100.0)[1], "what the daemon started is gone"
