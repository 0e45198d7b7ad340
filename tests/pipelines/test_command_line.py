"""What `policy-pipeline` refuses: by name, with its status, and before it has made or started anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import run_here


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with no database in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("INFLUXDB_V2_")]:
        monkeypatch.delenv(name)


@pytest.mark.process
def test_plaintext_to_another_machine_has_its_own_status_and_nothing_was_made(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("policy-pipeline")), "run", "--server.address", "trading.example:9900"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 78
    assert "expected both tls_ca_file and token_file for trading.example:9900" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["demo", "--prices", "no_such.csv"], "prices.recorded.paths: expected files of bars, received 'no_such.csv'"),
        (["demo", "--prices", "a/no_such.csv", "--prices", "b/no_such.csv"], "no_such"),
        (["demo", "--market", "moon"], "--market: expected gbm, heston-mixture, limit-orders, ou, portfolio, received 'moon'"),
        (["demo", "--config", "no_such.toml"], "no_such.toml"),
        (["demo", "--config", "no_such.toml", "--market", "gbm"], "--config: expected none beside --market gbm"),
        (["demo", "--process", "gbm"], "--process"),
        (["demo", "--resume", "--runs", "nowhere"], "nowhere"),
        (["demo", "--resume", "--seed", "3"], "--seed"),
        (["demo", "--resume", "--market", "gbm"], "--market"),
        (["demo", "--episodes", "0"], "episodes"),
        (["run", "--episodes.concurent", "3"], "concurent"),
        (["run", "--server.address", "nonsense"], "nonsense"),
        (["run", "--server.token_file", "nowhere"], "token_file: expected a readable file, received nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_are_refused_by_name_before_anything_starts(arguments: list[str], word: str, tmp_path: Path) -> None:
    ended = run_here("policy-pipeline", *arguments)
    assert ended.returncode == 2
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_database_whose_settings_are_not_whole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUXDB_V2_URL", "http://127.0.0.1:1")
    ended = run_here("policy-pipeline", "run")
    assert (ended.returncode, "INFLUXDB_V2_BUCKET" in ended.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_config_file_with_a_wrong_key_is_exit_2_and_names_the_key(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text("[episodes]\nconcurent = 8\n")
    ended = run_here("policy-pipeline", "run", "--config", str(file))
    assert ended.returncode == 2
    assert "episodes.concurent" in ended.stderr
    assert "episodes.concurrent" in ended.stderr
