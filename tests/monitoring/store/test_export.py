"""`policy-monitor export`: what comes out is what was recorded, in a real InfluxDB and as CSV."""

from __future__ import annotations

import csv
import io
import math
import resource
import sqlite3
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.points import Points
from policyserver.monitoring.store.export import Exporter, ExportSelection
from policyserver.monitoring.store.housekeeper import NEWEST_ROWS
from policyserver.monitoring.store.retention import RetentionConfig
from policyserver.monitoring.store.rollups import MINUTE_NS
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from tests.commands import run_here
from tests.services import InfluxServer, wait_until

NOON_NS = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()) * 10**9
STEPS = 6000
REWARDS = np.random.default_rng(3).normal(size=(2, STEPS))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two runs with a step each second from noon on, a few episodes, and texts that need care."""
    path = tmp_path_factory.mktemp("export") / "store.sqlite"
    opened = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=None)))
    for number, run in enumerate(("one", "two, too")):
        columns: dict[str, Any] = {
            "episode": ['a "b", c\\d' if step % 2 else "é🎲" for step in range(STEPS)],
            "bar": np.arange(STEPS),
            "price": [None if step % 3 else 100.5 for step in range(STEPS)],
            "reward": REWARDS[number],
            "fallback": np.arange(STEPS) % 2 == 0,
        }
        tags = {"run": run, "worker": "w", "process": "ou"}
        opened.write(Points("step", tags, columns, NOON_NS + np.arange(STEPS) * 10**9, {"symbol": ["A A", "B=,"] * (STEPS // 2)}))
        opened.write(Points("episode", tags, {"return": [1.5, 2.5], "length": [10, 20]}, NOON_NS + np.arange(2)))
    assert opened.flush(60.0)
    opened.close(60.0)
    return path


def export(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_here("policy-monitor", "export", "--store", str(store), *arguments)


def exported(store: Path, *arguments: str) -> str:
    done = export(store, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def import_into(influx: InfluxServer, text: str) -> None:
    lines = text.encode()
    url = f"{influx.url}/api/v2/write?org=-&bucket={influx.bucket}&precision=ns"
    for part in (lines[: lines.index(b"\n", len(lines) // 2) + 1], lines[lines.index(b"\n", len(lines) // 2) + 1 :]):
        with urllib.request.urlopen(urllib.request.Request(url, data=part, method="POST"), timeout=30.0) as response:
            assert response.status == 204


@pytest.mark.process
def test_line_protocol_replayed_twice_is_in_influxdb_once(influx: InfluxServer, store: Path) -> None:
    influx.start()
    lines = export(store).stdout
    for _ in range(2):
        import_into(influx, lines)
        rows = influx.query("SELECT COUNT(reward), SUM(reward), COUNT(price), SUM(bar) FROM step GROUP BY run")
        assert [row["run"] for row in rows] == ["one", "two, too"]
        for row, rewards in zip(rows, REWARDS, strict=True):
            assert (row["count"], row["count_1"], row["sum_1"]) == (STEPS, STEPS // 3, STEPS * (STEPS - 1) // 2)
            assert math.isclose(row["sum"], math.fsum(rewards), abs_tol=1e-9)
        assert influx.query("SELECT COUNT(length), SUM(\"return\") FROM episode WHERE run = 'one'")[0]["sum"] == 4.0
        symbols = influx.query("SELECT COUNT(reward) FROM step WHERE run = 'one' GROUP BY symbol")
        assert {row["symbol"]: row["count"] for row in symbols} == {"A A": STEPS // 2, "B=,": STEPS // 2}
    (first,) = influx.query("SELECT * FROM step WHERE run = 'one' LIMIT 1")
    assert (first["time"], first["episode"], first["fallback"], first["policy"]) == (NOON_NS, "é🎲", True, "none")


@pytest.mark.process
def test_merged_points_come_out_under_a_name_of_their_own(influx: InfluxServer, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    opened = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=3600.0, interval_s=0.02)))
    month_ago_ns = (time.time_ns() - 30 * 86_400 * 10**9) // MINUTE_NS * MINUTE_NS
    tags = {"run": "one", "worker": "w"}
    opened.write(Points("step", tags, {"reward": REWARDS[0], "action": [1] * STEPS}, month_ago_ns + np.arange(STEPS) * 10**8))
    opened.write(Points("step", tags, {"reward": np.ones(NEWEST_ROWS)}))
    assert opened.flush(60.0)
    connection = sqlite3.connect(path)
    wait_until(lambda: connection.execute("SELECT SUM(points) FROM step_1m").fetchone() == (STEPS,), "the steps to be merged")
    connection.close()
    opened.close(60.0)
    influx.start()
    lines = export(path).stdout
    for _ in range(2):
        import_into(influx, lines)
        (merged,) = influx.query("SELECT SUM(points), SUM(reward_sum), MAX(reward_max), COUNT(price_count), COUNT(price_min) FROM step_1m")
        assert merged["sum"] == STEPS
        assert math.isclose(merged["sum_1"], math.fsum(REWARDS[0]), abs_tol=1e-9)
        assert merged["max"] == REWARDS[0].max()
        assert influx.query("SELECT COUNT(reward), SUM(reward) FROM step")[0]["sum"] == NEWEST_ROWS
    kinds = {row["fieldKey"]: row["fieldType"] for row in influx.query("SHOW FIELD KEYS FROM step_1m")}
    assert (kinds["points"], kinds["action_sum"], kinds["action_max"]) == ("integer", "float", "integer")


@pytest.mark.long
def test_csv_of_one_measurement_is_what_was_recorded(store: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(store, "--format", "csv", "--measurement", "step", "--run", "two, too"))))
    assert [float(row["reward"]) for row in rows] == REWARDS[1].tolist()
    assert [int(row["time_ns"]) for row in rows[:2]] == [NOON_NS, NOON_NS + 10**9]
    assert [row["price"] for row in rows[:2]] == ["100.5", ""]
    assert [row["fallback"] for row in rows[:2]] == ["1", "0"]
    assert rows[1]["episode"] == 'a "b", c\\d'
    assert {row["run"] for row in rows} == {"two, too"}


@pytest.mark.long
def test_csv_of_all_measurements_is_a_folder_of_files(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "csv"
    exported(store, "--format", "csv", "--output", str(folder))
    files = {path.name: path.read_text().count("\n") - 1 for path in folder.iterdir()}
    assert (files["step.csv"], files["episode.csv"], files["order.csv"], files["step_1m.csv"]) == (2 * STEPS, 4, 0, 0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("--measurement", "episode"), 4),
        (("--measurement", "episode", "--measurement", "step"), 2 * STEPS + 4),
        (("--run", "one"), STEPS + 2),
        (("--run", "one", "--run", "two, too"), 2 * STEPS + 4),
        (("--measurement", "step", "--from", "2026-11-21T12:01"), 2 * (STEPS - 60)),
        (("--measurement", "step", "--from", "2026-11-21T13:01+01:00", "--to", "2026-11-21T12:02:00"), 2 * 60),
        (("--to", "2026-11-21"), 0),
    ],
)
def test_only_what_is_selected_comes_out(store: Path, arguments: tuple[str, ...], lines: int) -> None:
    assert exported(store, *arguments).count("\n") == lines


@pytest.mark.long
def test_a_store_is_not_replaced_by_what_is_exported_from_it(store: Path) -> None:
    refused = export(store, "--output", str(store), "--force")
    assert refused.returncode == 2, "it would be gone for good, and for whoever writes to it"
    assert "output: expected another file than the store" in refused.stderr
    assert exported(store)


@pytest.mark.process
def test_a_file_is_replaced_only_when_it_may_be_and_never_by_half(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "steps.lp"
    exported(store, "--output", str(output), "--run", "one")
    complete = output.read_bytes()
    assert complete.count(b"\n") == STEPS + 2
    done = export(store, "--output", str(output))
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert output.read_bytes() == complete
    full = subprocess.run(
        [sys.executable, "-m", "policyserver.monitoring", "export", "--store", str(store), "--output", str(output), "--force"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        timeout=110,
        check=False,
    )
    assert full.returncode == 2
    assert b"File too large" in full.stderr
    assert output.read_bytes() == complete
    exported(store, "--output", str(output), "--force")
    assert output.read_bytes().count(b"\n") == 2 * STEPS + 4
    assert [path.name for path in tmp_path.iterdir()] == ["steps.lp"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--store", "nothing.sqlite"), "expected the file of an embedded store"),
        (("--measurement", "stepp"), "invalid choice: 'stepp'"),
        (("--run", "three"), "run: expected one of one, two, too, received three"),
        (("--from", "yesterday"), "expected a time such as"),
        (("--from", "2026-11-22", "--to", "2026-11-21"), "expected a time before the end"),
        (("--format", "csv"), "expected a folder for the CSV of several measurements"),
        (("--format", "json"), "invalid choice: 'json'"),
        (("--output", "/"), "expected a file, received the folder"),
        (("--output", "/sys/points.lp"), "Permission denied: '/sys/points.lp'"),
    ],
)
def test_a_wrong_argument_is_named_and_ends_with_2(store: Path, arguments: tuple[str, ...], said: str) -> None:
    done = export(store, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.process
def test_a_reader_that_has_had_enough_ends_it_quietly(store: Path) -> None:
    command = [sys.executable, "-m", "policyserver.monitoring", "export", "--store", str(store)]
    exporting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert exporting.stdout is not None
    assert exporting.stderr is not None
    exporting.stdout.readline()
    exporting.stdout.close()
    assert exporting.wait(110) == 0
    assert exporting.stderr.read() == b""
    exporting.stderr.close()


@pytest.mark.long
def test_an_export_is_of_one_moment_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    opened = EmbeddedStore(path, StoreConfig(commit_interval_s=0.0))
    opened.write(Points("step", {"run": "r", "worker": "w"}, {"reward": np.ones(10)}))
    assert opened.flush(60.0)

    class Output(io.BytesIO):
        def write(self, data: Any) -> int:
            opened.write(Points("episode", {"run": "r", "worker": "w"}, {"return": [1.0]}))
            assert opened.flush(60.0)
            return super().write(data)

    out = Output()
    with Exporter.opened(path, ExportSelection()) as exporter:
        assert exporter.line_protocol(out.write) == 10
    assert out.getvalue().count(b"step,") == out.getvalue().count(b"\n") == 10
    with Exporter.opened(path, ExportSelection()) as exporter:
        assert exporter.line_protocol(io.BytesIO().write) == 11
    opened.close(60.0)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_memory_stays_bounded_whatever_the_size_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    opened = EmbeddedStore(path, StoreConfig(retention=RetentionConfig(raw_s=None, raw_points=None)))
    for _ in range(15):
        opened.write(Points("step", {"run": "r", "worker": "w"}, {"reward": np.ones(20_000), "episode": ["e" * 36] * 20_000}))
    assert opened.flush(60.0)
    opened.close(60.0)
    program = """
import resource, sys
from policyserver.monitoring.__main__ import main
assert main(["export", "--store", sys.argv[1], "--output", sys.argv[2], "--to", "1971-01-01"]) == 0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert main(["export", "--store", sys.argv[1], "--output", sys.argv[3]]) == 0
sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "none.lp"), str(tmp_path / "all.lp")]
    grown_kib = int(subprocess.run(command, capture_output=True, timeout=300, check=True).stdout)
    assert (tmp_path / "all.lp").stat().st_size > 30_000_000
    assert grown_kib < 15_000
