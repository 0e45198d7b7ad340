"""What an older version left in its run folders is gone on with, or refused in one line.

`run_folder_of_f017788.tgz` was made by that commit, when modules were called `server.runner` and not `policyserver.server...`: `server/`
is a run folder of `policy-server serve` with `server_settings.toml`, after two training iterations; `demo/` has one of a demo.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from policyserver.client import PolicyClient
from policyserver.common.settings import SettingsError, load
from policyserver.pipelines.demo.setup import DemoConfig, resumed_run
from policyserver.server.config.server_config import ServerConfig
from tests.integration.daemon_process import DaemonProcess
from tests.ports import free_address


@pytest.fixture
def older(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("run_folder_of_f017788.tgz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_settings_of_an_older_version_are_refused_in_one_line(older: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load(ServerConfig, older / "server_settings.toml")
    assert str(refused.value).startswith(f"{older}/server_settings.toml: monitoring: unknown key; known here: run_folder, ")
    assert "recording" in str(refused.value)
    (folder,) = (older / "demo").iterdir()
    with pytest.raises(SettingsError) as refused:
        resumed_run(folder, DemoConfig(resume=True, runs=older / "demo"), "127.0.0.1:9901")
    assert str(refused.value).startswith(f"{folder}/pipeline.toml: account: unknown key; did you mean 'rules.account'?")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_checkpoint_of_an_older_version_is_gone_on_with(older: Path) -> None:
    settings = older / "settings.toml"
    text = (older / "server_settings.toml").read_text(encoding="utf-8")
    settings.write_text(text.replace("monitoring.enabled", "recording.enabled"), encoding="utf-8")
    address = free_address()
    with DaemonProcess(older / "server", address, "--config", str(settings)) as daemon:
        daemon.wait_ready()
        assert "checkpoint-00000002: iteration 2, policy version 2" in daemon.text()
        with PolicyClient(address) as client:
            episodes = client.start_episodes(8)
            while client.weights_seq_no <= 2:
                client.get_actions(episodes, np.zeros((8, 2), np.float32))
                client.log_returns_batch(episodes, np.ones(8))
        assert daemon.terminate() == 0
