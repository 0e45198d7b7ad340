"""The live page: what it serves, to whom, and how it begins and ends. What a browser makes of it: test_page_in_browser.py."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from policyserver.monitoring.page.listen import PageConfig
from policyserver.monitoring.page.server import PageServer
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from tests.commands import run_here
from tests.monitoring.filled_store import SYMBOLS, FilledRun, fill
from tests.monitoring.page_harness import get, serve, step


def snapshot(page: PageServer, query: str = "") -> dict[str, Any]:
    status, body = get(f"{page.address}/snapshot{query}")
    assert status == 200
    return dict(json.loads(body))


@pytest.mark.long
def test_the_snapshot_has_every_section_of_the_run(page: PageServer) -> None:
    sections = snapshot(page)
    assert sections["choices"] == {"run": "run-1", "runs": ["run-1"], "symbols": list(SYMBOLS), "policies": ["PPO"], "note": ""}
    assert [row["bar"] for row in sections["decisions"]] == [39] * 12
    assert sections["server"][0]["episodes_open"] == 64
    assert sections["train"][0]["iteration"] == 60
    episodes = sections["episodes"]["columns"]
    assert sum(episodes["episodes"]) == 64
    assert max(episodes["return_p05"]) < max(episodes["return_p50"]) < max(episodes["return_p95"])
    assert sections["running"]["columns"]["bar"] == list(range(40))
    for name in ("steps", "learner", "regressor", "serving", "pipeline", "sink"):
        for column, values in sections[name]["columns"].items():
            assert len(values) >= 29, name
            assert any(value is not None for value in values), f"{name}.{column}"


@pytest.mark.long
def test_a_selection_shows_what_is_selected_alone(page: PageServer) -> None:
    assert snapshot(page, "?run=another")["choices"]["run"] == "another"
    one = snapshot(page, "?symbol=BBB")
    assert {row["symbol"] for row in one["decisions"]} == {"BBB"}
    assert set(one["running"]["columns"]["episodes"]) == {16}
    assert snapshot(page, "?policy=DQN")["decisions"] == []
    part = snapshot(page, "?range=20")["steps"]
    assert part["columns"]["time_s"][-1] - part["begin_s"] < 24
    assert len(part["columns"]["time_s"]) < len(snapshot(page)["steps"]["columns"]["time_s"]) / 2


@pytest.mark.long
@pytest.mark.parametrize("wrong", ["0", "-5", "1.5", "soon", "1" * 12])
def test_a_range_that_is_none_is_refused(page: PageServer, wrong: str) -> None:
    status, body = get(f"{page.address}/snapshot?range={wrong}")
    assert status == 400
    assert b"expected a whole number of seconds" in body


@pytest.mark.long
def test_everything_the_page_needs_comes_from_the_page(page: PageServer) -> None:
    html = get(f"{page.address}/")[1].decode()
    assert "http://" not in html
    assert "https://" not in html
    for path in ("uplot/uPlot.iife.min.js", "uplot/uPlot.min.css", "uplot/LICENSE", "page.css", "theme.js", "page.js", "icon.svg"):
        assert get(f"{page.address}/static/{path}")[0] == 200, path
    assert get(f"{page.address}/static/../server.py")[0] == 404


@pytest.mark.long
@pytest.mark.parametrize("path", ["/", "/snapshot", "/events", "/static/page.js"])
def test_the_page_can_only_be_read(page: PageServer, path: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(urllib.request.Request(f"{page.address}{path}", data=b"{}", method=method), timeout=30.0)


@pytest.mark.long
def test_a_name_that_is_not_the_loopbacks_is_refused(page: PageServer) -> None:
    assert get(f"{page.address}/snapshot", {"Host": "evil.example"})[0] == 400
    assert get(f"{page.address}/snapshot", {"Host": "localhost"})[0] == 200


@pytest.mark.long
def test_a_port_in_use_is_an_error_that_names_the_setting(page: PageServer) -> None:
    with pytest.raises(OSError, match=r"recording.page: 127.0.0.1:\d+ can't be taken: Address already in use; stop the process"):
        PageServer(PageConfig(page.address.removeprefix("http://")), key="recording.page")


@pytest.mark.long
def test_a_store_of_an_older_version_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    fill(path, FilledRun("old"), steps=64 * 210)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE sink")
        connection.execute("ALTER TABLE episode DROP COLUMN drawdown")
        connection.execute("ALTER TABLE train DROP COLUMN learning_rate")
        for column in ("learning_rate_count", "learning_rate_sum"):
            connection.execute(f"ALTER TABLE train_1m DROP COLUMN {column}")
    page = serve(path)
    sections = snapshot(page)
    page.close()
    assert sections["sink"]["columns"]["time_s"] == []
    assert set(sections["episodes"]["columns"]["drawdown"]) == {None}
    assert set(sections["learner"]["columns"]["learning_rate"]) == {None}
    assert None not in sections["learner"]["columns"]["loss"]
    assert sum(sections["episodes"]["columns"]["episodes"]) == 64


@pytest.mark.long
def test_a_store_that_is_still_empty_is_served_and_its_first_points_shown(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    store = EmbeddedStore(tmp_path / "empty.sqlite", StoreConfig(commit_interval_s=0.01))
    page = serve(store.path)
    with urllib.request.urlopen(f"{page.address}/events", timeout=60.0) as events:
        assert events.readline() == b"event: choices\n"
        assert json.loads(events.readline().removeprefix(b"data: ")) == {"run": None, "runs": [], "symbols": [], "policies": [], "note": ""}
        store.write(step(7))
        lines = iter(events.readline, b"")
        assert next(line for line in lines if b'"run":"run-1"' in line)
        assert json.loads(next(line for line in lines if line.startswith(b"data: ["))[6:])[0]["bar"] == 7
        begun = time.monotonic()
        page.close()
        assert time.monotonic() - begun < 8.0, "a viewer does not hold up the end"
    page.close()
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "page"]
    store.close(60.0)


@pytest.mark.process
def test_the_command_serves_until_it_is_told_to_stop(page_store: EmbeddedStore) -> None:
    command = [sys.executable, "-m", "policyserver.monitoring", "serve", "--store", str(page_store.path), "--address", "127.0.0.1:0"]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert served.stdout is not None
    address = served.stdout.readline().removeprefix("page at ").strip()
    assert get(f"{address}/")[0] == 200
    served.send_signal(signal.SIGTERM)
    assert served.wait(60) == 0
    served.stdout.close()


@pytest.mark.long
def test_the_command_names_what_is_wrong_and_exits_with_2(tmp_path: Path, page_store: EmbeddedStore) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = run_here("policy-monitor", "serve", *arguments)
        return done.returncode, done.stderr

    code, said = run("--store", str(tmp_path / "nothing"))
    assert code == 2
    assert "expected the file of an embedded store" in said
    code, said = run("--store", str(page_store.path), "--address", "9980")
    assert code == 2
    assert "expected HOST:PORT" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = run("--store", str(page_store.path), "--address", f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 2
    assert "in use" in said
