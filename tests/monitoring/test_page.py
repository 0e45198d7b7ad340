"""The live page: what it serves, and that a real browser draws it and keeps it up to date."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitoring.page.server import PageServer
from monitoring.points import Points
from monitoring.store import EmbeddedStore, StoreConfig
from tests.browser import Browser
from tests.services import MissingService, wait_until

RUN = {"run": "run-1", "policy": "p", "worker": "w"}


def get(url: str, host: str | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=10.0) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def step(bar: int, action: int = 2, reward: float = 0.5) -> Points:
    fields: dict[str, Any] = {"episode": f"episode-{bar // 10}", "bar": bar, "price": 101.25, "prediction": 0.001, "action": action}
    return Points.one("step", RUN | {"process": "ou", "symbol": "AAA"}, fields | {"position": 10.0, "equity": 1e4, "reward": reward})


def episodes(returns: np.ndarray) -> Points:
    count = len(returns)
    columns = {"return": returns, "no_trade_return": np.zeros(count), "random_return": np.full(count, -1.0)}
    return Points("episode", RUN | {"process": "ou"}, columns, time.time_ns() - np.arange(count)[::-1] * 1_000_000_000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """A store with a little of everything."""
    store = EmbeddedStore(tmp_path / "store.sqlite", StoreConfig(commit_interval_s=0.05))
    for bar in range(30):
        store.write(step(bar))
    store.write(episodes(np.linspace(0.0, 1.0, 50)))
    for number in range(1, 6):
        train = {"iteration": number, "loss": 1.0 / number, "kl": 0.01, "entropy": 1.0, "weights_seq_no": number}
        server = {
            "boot_id": "b",
            "actions": 100 * number,
            "episodes_open": 64,
            "steps_completed": 1234 + number,
            "steps_waiting": 10 * number,
        }
        store.write(Points.one("train", RUN, train))
        store.write(Points.one("server", RUN, server | {"staleness_mean": 1.0}))
    assert store.flush(10.0)
    yield store
    store.close(5.0)


@pytest.fixture
def page(store: EmbeddedStore) -> Iterator[PageServer]:
    """The store's page."""
    page = PageServer(store.path)
    yield page
    page.close()


@pytest.fixture
def browser(tmp_path: Path, missing_service: MissingService) -> Iterator[Browser]:
    """A browser."""
    browser = Browser(tmp_path / "profile", missing_service)
    yield browser
    browser.close()


def test_the_snapshot_has_every_section_of_the_run(page: PageServer) -> None:
    status, body = get(f"{page.address}/snapshot")
    assert status == 200
    sections = json.loads(body)
    assert sections["run"] == {"run": "run-1", "runs": ["run-1"]}
    assert [row["bar"] for row in sections["decisions"]] == list(range(29, 17, -1))
    assert sections["server"]["steps_completed"] == 1239
    assert sections["train"]["iteration"] == 5
    assert sum(sections["returns"]["episodes"]) == 50
    assert sections["learner"]["weights_seq_no"] == [1, 2, 3, 4, 5]
    assert len(sections["serving"]["actions_per_s"]) == 5
    assert json.loads(get(f"{page.address}/snapshot?run=another")[1])["decisions"] == []


def test_everything_the_page_needs_comes_from_the_page(page: PageServer) -> None:
    html = get(f"{page.address}/")[1].decode()
    assert "http://" not in html
    assert "https://" not in html
    for path in ("uplot/uPlot.iife.min.js", "uplot/uPlot.min.css", "uplot/LICENSE", "page.css", "charts.js", "page.js", "icon.svg"):
        assert get(f"{page.address}/static/{path}")[0] == 200, path
    assert get(f"{page.address}/static/../server.py")[0] == 404


def test_a_name_that_is_not_the_loopbacks_is_refused(page: PageServer) -> None:
    assert get(f"{page.address}/snapshot", host="evil.example")[0] == 400
    assert get(f"{page.address}/snapshot", host="localhost")[0] == 200


def test_an_address_beyond_the_loopback_is_refused(store: EmbeddedStore) -> None:
    with pytest.raises(ValueError, match=r"received '0\.0\.0\.0'"):
        PageServer(store.path, "0.0.0.0")


def test_a_port_in_use_is_an_error(page: PageServer, store: EmbeddedStore) -> None:
    with pytest.raises(OSError, match="in use"):
        PageServer(store.path, port=int(page.address.rpartition(":")[2]))


def test_a_store_that_is_still_empty_is_served_and_its_first_points_shown(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "empty.sqlite", StoreConfig(commit_interval_s=0.01))
    page = PageServer(store.path)
    with urllib.request.urlopen(f"{page.address}/events", timeout=10.0) as events:
        assert events.readline() == b"event: run\n"
        assert json.loads(events.readline().removeprefix(b"data: ")) == {"run": None, "runs": []}
        store.write(step(7))
        lines = iter(events.readline, b"")
        assert next(line for line in lines if b"run-1" in line)
        assert json.loads(next(line for line in lines if line.startswith(b"data: ["))[6:])[0]["bar"] == 7
        begun = time.monotonic()
        page.close()
        assert time.monotonic() - begun < 3.0, "a viewer does not hold up the end"
    page.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "page"]
    store.close(5.0)


def test_the_browser_draws_every_panel_without_an_error(page: PageServer, browser: Browser) -> None:
    browser.open(page.address)
    wait_until(lambda: browser.script("return document.querySelectorAll('#decisions tr').length == 12"), "twelve decisions")
    wait_until(lambda: browser.script("return document.querySelectorAll('canvas').length") == 9, "nine charts")
    painted = """
        const bytes = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return [...document.querySelectorAll("canvas")].map((canvas) => bytes(canvas).filter((byte) => byte).length);
    """
    wait_until(lambda: min(browser.script(painted)) > 100, "each chart to have pixels")
    assert browser.script("return document.querySelectorAll('.chart.empty').length") == 0
    text = browser.script("return document.body.innerText")
    assert "1,239" in text
    assert "live" in text
    assert browser.script("return document.title") == "run-1 · Policy server"
    assert browser.errors() == []


def test_the_browser_shows_new_points_as_they_come_and_after_the_server_was_restarted(store: EmbeddedStore, browser: Browser) -> None:
    newest = "return document.querySelector('#decisions tr')?.innerText"
    page = PageServer(store.path)
    browser.open(page.address)
    wait_until(lambda: "episode-2" in (browser.script(newest) or ""), "the newest decision")
    store.write(step(770, action=0, reward=-0.25))
    row = wait_until(lambda: "episode-77" in browser.script(newest) and browser.script(newest), "the next decision", 3.0)
    assert "sell" in row
    assert "-0.2500" in row
    drawn = int(browser.script("return document.getElementById('returns').dataset.points"))
    store.write(episodes(np.full(20, 5.0)))
    wait_until(lambda: int(browser.script("return document.getElementById('returns').dataset.points")) > drawn, "the chart to grow", 3.0)

    page.close()
    wait_until(lambda: browser.script("return document.querySelector('.lost') != null"), "the page to notice that the server is gone")
    store.write(step(990))
    page = PageServer(store.path, port=int(page.address.rpartition(":")[2]))
    wait_until(lambda: "episode-99" in browser.script(newest), "the page to go on", 15.0)
    assert browser.script("return document.querySelector('.live') != null")
    page.close()


def test_the_command_serves_until_it_is_told_to_stop(store: EmbeddedStore) -> None:
    command = [sys.executable, "-m", "monitoring", "serve", "--store", str(store.path), "--address", "127.0.0.1:0"]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert served.stdout is not None
    address = served.stdout.readline().removeprefix("page at ").strip()
    assert get(f"{address}/")[0] == 200
    served.send_signal(signal.SIGTERM)
    assert served.wait(10) == 0
    served.stdout.close()


def test_the_command_names_what_is_wrong_and_exits_with_2(tmp_path: Path, store: EmbeddedStore) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "monitoring", "serve", *arguments], capture_output=True, text=True, timeout=30, check=False
        )
        return done.returncode, done.stderr

    code, said = run("--store", str(tmp_path / "nothing"))
    assert code == 2
    assert "expected the file of an embedded store" in said
    code, said = run("--store", str(store.path), "--address", "9980")
    assert code == 2
    assert "expected HOST:PORT" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = run("--store", str(store.path), "--address", f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 2
    assert "in use" in said
