"""Measures the live page: how fast it opens over a million points, and what 64 live episodes at four updates a second cost.

python -m tests.monitoring.page_figures
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from tests.browser import Browser
from tests.monitoring.filled_store import EPISODES, FilledRun, fill
from tests.services import MissingService, wait_until

MILLION_POINTS_STEPS = 64 * 7_800
UPDATES_PER_S = 4.0
STEPS_PER_S = EPISODES * UPDATES_PER_S
COMMIT_INTERVAL_S = 0.2
"""Of the store; its default of 0.25 makes a little less than four commits a second, for a commit takes time too."""
_TOGETHER = 8
"""Steps that are recorded together."""

_FIRST_PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_VISIBLE_DRAWN = "return document.querySelector('#returns canvas') && +document.getElementById('steps').dataset.points > 0"
_COUNT_UPDATES = """
    window.updates = 0;
    new MutationObserver(() => window.updates++).observe(document.getElementById("decisions"), {childList: true});
"""


@dataclass(frozen=True)
class Opening:
    """How the page opened."""

    points: int
    """Points in the store."""
    first_paint_s: float
    """From the request to the first paint, by the browser's own clock."""
    drawn_s: float
    """From the request until every section was there."""
    server_cpu_s: float
    """What the serving process computed for it."""

    def __str__(self) -> str:
        """Write it as a line of the report."""
        return (
            f"opening over {self.points:,} points: first paint {self.first_paint_s:.2f} s, all drawn {self.drawn_s:.2f} s, "
            f"server {self.server_cpu_s:.2f} s of a core\n"
        )


@dataclass(frozen=True)
class Following:
    """What following a run costs."""

    updates_per_s: float
    """Updates that the browser showed."""
    server_share: float
    """Of a core, by the serving process."""
    browser_share: float
    """Of a core, by all of the browser's processes, which here draw without a graphics card."""

    def __str__(self) -> str:
        """Write it as a line of the report."""
        return (
            f"following 64 episodes: {self.updates_per_s:.1f} updates/s, server {self.server_share:.1%}, "
            f"browser {self.browser_share:.1%} of a core\n"
        )


@contextlib.contextmanager
def served(store: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run `policy-monitor serve` as a process of its own; its page's address and the process."""
    command = [sys.executable, "-m", "policyserver.monitoring", "serve", "--store", str(store), "--address", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().removeprefix("page at ").strip(), psutil.Process(process.pid)
        finally:
            process.terminate()


def measure_opening(folder: Path, missing_service: MissingService) -> Opening:
    """Open the page of a run of a million points."""
    store = folder / "million.sqlite"
    points = fill(store, FilledRun(), MILLION_POINTS_STEPS)
    with served(store) as (address, server), contextlib.closing(Browser(folder / "profile", missing_service)) as browser:
        browser.open(f"{address}/static/icon.svg")  # the browser itself has started
        before = _cpu_s([server])
        begun = time.monotonic()
        browser.open(address)
        first_paint_ms: float = wait_until(lambda: browser.script(_FIRST_PAINT), "the first paint")
        wait_until(lambda: browser.script(_VISIBLE_DRAWN), "every section")
        return Opening(points, first_paint_ms / 1e3, time.monotonic() - begun, _cpu_s([server]) - before)


def measure_following(folder: Path, missing_service: MissingService, seconds: float = 15.0) -> Following:
    """Follow 64 episodes that are played at four steps a second each, while they are recorded."""
    path = folder / "live.sqlite"
    run = FilledRun(steps_per_s=STEPS_PER_S)
    begin_ns = time.time_ns() - int(BEFORE_STEPS / STEPS_PER_S * 1e9)
    fill(path, run, BEFORE_STEPS)
    with _playing(path, run, begin_ns), served(path) as (address, server):
        browser = Browser(folder / "profile-live", missing_service)
        try:
            browser.open(address)
            wait_until(lambda: browser.script(_VISIBLE_DRAWN), "every section")
            browser.script(_COUNT_UPDATES)
            processes = [psutil.Process(browser.pid), *psutil.Process(browser.pid).children(recursive=True)]
            begun, server_before, browser_before = time.monotonic(), _cpu_s([server]), _cpu_s(processes)
            time.sleep(seconds)
            updates = browser.script("return window.updates")
            passed = time.monotonic() - begun
            return Following(updates / passed, (_cpu_s([server]) - server_before) / passed, (_cpu_s(processes) - browser_before) / passed)
        finally:
            browser.close()


BEFORE_STEPS = 64 * 4 * 600
"""Steps of the run before it is followed: ten minutes."""


@contextlib.contextmanager
def _playing(path: Path, run: FilledRun, begin_ns: int) -> Iterator[None]:
    """Record the run on: four steps of each episode a second, a few episodes at a time, as pipelines do."""
    store, ended = EmbeddedStore(path, StoreConfig(commit_interval_s=COMMIT_INTERVAL_S)), threading.Event()

    def play() -> None:
        due = time.monotonic()
        while not ended.wait(max(0.0, due - time.monotonic())):
            for points in run.points(_TOGETHER, begin_ns):
                store.write(points)
            due += _TOGETHER / STEPS_PER_S

    player = threading.Thread(target=play)
    player.start()
    try:
        yield
    finally:
        ended.set()
        player.join()
        store.close(30.0)


def _cpu_s(processes: list[psutil.Process]) -> float:
    """Return the time that processes have had of a core."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def _missing(reason: str) -> NoReturn:
    raise SystemExit(reason)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sys.stdout.write(f"{measure_opening(folder, _missing)}{measure_following(folder, _missing)}")


if __name__ == "__main__":
    main()
