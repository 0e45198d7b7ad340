from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process


def run(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("policy-pipeline")), "run", *options]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INFLUXDB_V2_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder, env=kept | environment, check=False)


def test_plaintext_to_another_machine_has_its_own_status_and_nothing_was_made(tmp_path: Path) -> None:
    ended = run(tmp_path, "--server.address", "trading.example:9900")
    assert ended.returncode == 78
    assert "expected both tls_ca_file and token_file for trading.example:9900" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--server.address", "nonsense"], {}, "nonsense"),
        (["--server.token_file", "nowhere"], {}, "token_file: expected a readable file, received nowhere"),
        ([], {"INFLUXDB_V2_URL": "http://127.0.0.1:1"}, "INFLUXDB_V2_BUCKET"),
    ],
    ids=["address", "token", "database"],
)
def test_what_only_shows_when_it_is_used_is_refused_by_name_as_a_wrong_setting(
    options: list[str], environment: dict[str, str], message: str, tmp_path: Path
) -> None:
    ended = run(tmp_path, *options, **environment)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []
