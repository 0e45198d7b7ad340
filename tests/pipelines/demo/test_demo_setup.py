"""A run's settings are written into its folder, a resumed run keeps them at another address, and what can't be is refused."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.market.learners import RLLIB_SERVER
from policyserver.common.settings import SettingsError, load
from policyserver.pipelines.config import PipelineConfig, PipelineRecordingConfig
from policyserver.pipelines.demo.setup import DEMO_SERVER, SERVER_FILE, DemoConfig, fresh_run, newest_run, resumed_run
from policyserver.server.config.server_config import ServerConfig

ADDRESS = "127.0.0.1:9901"


@pytest.mark.long
@pytest.mark.parametrize("server", [DEMO_SERVER, RLLIB_SERVER])
def test_the_chosen_settings_go_into_the_run_folder_with_the_runs_own(server: Path, tmp_path: Path) -> None:
    folder, _ = fresh_run(DemoConfig(seed=3, server=server, runs=tmp_path), ADDRESS)
    written = load(ServerConfig, folder / SERVER_FILE)
    assert (written.seed, written.run_folder, written.listen.address) == (3, folder, ADDRESS)
    assert written.algorithm == load(ServerConfig, server).algorithm


@pytest.mark.long
def test_a_resumed_run_keeps_the_settings_it_began_with_and_gets_another_address(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.toml"
    chosen.write_text("# chosen\n\n[algorithm.training]\n\nlr = 0.125\n", encoding="utf-8")
    folder, _ = fresh_run(DemoConfig(server=chosen, runs=tmp_path / "runs"), ADDRESS)
    first = (folder / SERVER_FILE).read_text(encoding="utf-8")
    chosen.unlink()
    for address in ("127.0.0.1:9902", "127.0.0.1:9903"):
        options = DemoConfig(resume=True, runs=tmp_path / "runs")
        assert newest_run(options) == folder
        assert resumed_run(folder, options, address).server.address == address
        text = (folder / SERVER_FILE).read_text(encoding="utf-8")
        assert text.partition("\n\n")[2] == first.partition("\n\n")[2] == "# chosen\n\n[algorithm.training]\n\nlr = 0.125\n"
        assert tomllib.loads(text)["listen"]["address"] == address


def test_what_a_file_says_of_recording_counts_but_for_where_the_demo_records(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    own = "keep_runs = 7\nmax_event_bytes = 2_000_000\nwhen_events_full = 'end_run'\nmarket_order_events = true"
    file.write_text(f"[recording]\n{own}\nrun = 'other'\nstore = 'other.sqlite'\nrun_folder = 'other'\n", encoding="utf-8")
    folder, config = fresh_run(DemoConfig(config=file, runs=tmp_path / "runs"), ADDRESS)
    kept = PipelineRecordingConfig(keep_runs=7, max_event_bytes=2_000_000, when_events_full="end_run", market_order_events=True)
    demos: dict[str, Any] = {"run": folder.name, "policy": "PPO", "store": folder / "store.sqlite", "run_folder": folder}
    assert config.recording == dataclasses.replace(kept, **demos)
    assert load(PipelineConfig, folder / "pipeline.toml").recording == config.recording


@pytest.mark.parametrize(
    ("options", "said"),
    [({"server": Path("nowhere.toml")}, "nowhere.toml"), ({"resume": True, "server": RLLIB_SERVER}, "leave --server out")],
)
def test_server_settings_that_cannot_be_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        DemoConfig(**options)  # type: ignore[arg-type]
