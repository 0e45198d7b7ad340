"""An export in pieces: each fits into a request, together they are the whole, and the documented commands bring it into a database."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.points import Points
from policyserver.monitoring.store.store import EmbeddedStore
from tests.commands import run_here
from tests.services import InfluxServer

PAGE = (Path(__file__).parents[3] / "docs" / "guides" / "monitoring.md").read_text(encoding="utf-8")
STEPS = 120_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose line protocol is longer than InfluxDB 1's longest request, 25 MB."""
    path = tmp_path_factory.mktemp("pieces") / "store.sqlite"
    opened = EmbeddedStore(path)
    columns: dict[str, Any] = {
        name: np.random.default_rng(0).normal(size=STEPS) for name in ("price", "prediction", "prediction_std", "equity", "reward")
    }
    ids: dict[str, Any] = {
        "episode": [f"20261121T032235Z-seed0/AAA-{number // 200}" for number in range(STEPS)],
        "bar": np.arange(STEPS) % 200,
    }
    opened.write(Points("step", {"run": "20261121T032235Z-seed0", "policy": "PPO", "process": "ou", "worker": "w"}, columns | ids))
    assert opened.flush(60.0)
    opened.close(60.0)
    return path


def export(store: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_here("policy-monitor", "export", "--store", str(store), *map(str, arguments))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.process
def test_the_documented_commands_bring_a_long_export_into_influxdb(influx: InfluxServer, store: Path, tmp_path: Path) -> None:
    influx.start()
    (block,) = re.findall(r"```console\n(\$ \S*policy-monitor export [^`]*--piece_bytes [^`]*)```", PAGE)
    commands = re.sub(r"^[$>] ?", "", block, flags=re.MULTILINE)
    commands = re.sub(r"\S*policy-monitor", f"{sys.executable} -m policyserver.monitoring", commands)
    commands = re.sub(r"--store \S+", f"--store {store}", commands)
    variables = {"INFLUXDB_V2_URL": influx.url, "INFLUXDB_V2_ORG": "o", "INFLUXDB_V2_BUCKET": influx.bucket, "INFLUXDB_V2_TOKEN": "u:p"}
    root = Path(__file__).parents[3]
    environment = os.environ | variables | {"PYTHONPATH": f"{root}:{root / 'proto'}"}
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert influx.query("SELECT COUNT(reward) FROM step") == [{"time": 0, "count": STEPS}]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.long
def test_pieces_are_whole_lines_and_together_what_one_file_has(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pieces"
    done = export(store, "--output", folder, "--piece_bytes", 1_000_000, "--tag", "host=a b")
    assert done.returncode == 0, done.stderr
    pieces = [path.read_bytes() for path in sorted(folder.iterdir())]
    assert f"{STEPS:,} points in {len(pieces)} files" in done.stderr
    assert len(pieces) > 25
    assert all(900_000 < len(piece) <= 1_000_000 for piece in pieces[:-1])
    assert all(piece.endswith(b"\n") for piece in pieces)
    whole = tmp_path / "run.lp"
    assert export(store, "--output", whole, "--tag", "host=a b").returncode == 0
    assert b"".join(pieces) == whole.read_bytes()
    assert whole.read_bytes().startswith(b"step,host=a\\ b,run=")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.long
def test_a_line_longer_than_a_piece_has_a_piece_of_its_own(store: Path, tmp_path: Path) -> None:
    before = "1970-01-02"
    folder = tmp_path / "pieces"
    small = tmp_path / "small.sqlite"
    opened = EmbeddedStore(small)
    opened.write(Points("train", {"run": "r"}, {"checkpoint_path": ["a", "b" * 200, "c"]}, np.arange(3) + 1))
    opened.close(60.0)
    assert export(small, "--to", before, "--output", folder, "--piece_bytes", 100).returncode == 0
    assert [path.read_text().count("\n") for path in sorted(folder.iterdir())] == [1, 1, 1]


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--piece_bytes", "5"], "output: expected a folder for the pieces"),
        (["--piece_bytes", "0", "--output", "new"], "piece_bytes: expected 1 byte or more"),
        (["--piece_bytes", "5", "--output", "held"], "--force replaces it"),
        (["--piece_bytes", "5", "--output", "held", "--force"], "it holds something else"),
        (["--piece_bytes", "5", "--output", "unfinished"], "unfinished.part to be a folder of pieces"),
        (["--piece_bytes", "5", "--output", "new", "--format", "csv"], "format: expected lp"),
        (["--tag", "run=a"], "tags: expected names that no recorded tag or field has"),
        (["--tag", "host"], "expected NAME=VALUE"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_touched(store: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    held = tmp_path / "held"
    held.mkdir()
    (held / "notes.txt").write_text("mine")
    (tmp_path / "unfinished.part").mkdir()
    (tmp_path / "unfinished.part" / "notes.txt").write_text("mine, too")
    done = export(store, *(str(tmp_path / each) if each in ("new", "held", "unfinished") else each for each in arguments))
    assert done.returncode == 2
    assert said in done.stderr
    assert [path.name for path in held.iterdir()] == ["notes.txt"]
    assert (tmp_path / "unfinished.part" / "notes.txt").read_text() == "mine, too"
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.long
def test_a_folder_of_pieces_is_replaced_when_asked(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pieces"
    assert export(store, "--output", folder, "--piece_bytes", 1_000_000).returncode == 0
    assert export(store, "--output", folder, "--piece_bytes", 20_000_000, "--force").returncode == 0
    assert [path.name for path in sorted(folder.iterdir())] == ["0001.lp", "0002.lp"]
