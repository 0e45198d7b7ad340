"""What the page shows of runs that ended, were interrupted, have one point or none: in a real browser."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.page.server import PageServer
from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import MEASUREMENTS
from policyserver.monitoring.store import tables
from tests.browser import ARROW_LEFT, Browser
from tests.monitoring.page_harness import RUN, serve
from tests.services import wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

DAY_NS = 86_400 * 10**9
NEWEST_NS = time.time_ns() - 2 * DAY_NS

CONNECTION = "const element = document.getElementById('connection'); return [element.className, element.innerText]"
COLOURED = """
    const [canvas] = document.querySelectorAll("#actions-per-second canvas");
    if (!canvas) return [];
    const {width, height} = canvas;
    const bytes = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const blue = (at) => bytes[at] < 90 && bytes[at + 1] < 140 && bytes[at + 2] > 180 && bytes[at + 3] > 200;
    return [...Array(width).keys()].map((x) => [...Array(height).keys()].some((y) => blue(4 * (y * width + x))));
"""
"""Which columns of pixels of the chart of actions have its curve."""

WORDS = """
    window.words = [];
    const draw = CanvasRenderingContext2D.prototype.fillText;
    CanvasRenderingContext2D.prototype.fillText = function (text, ...place) { words.push(text); return draw.call(this, text, ...place); };
    document.dispatchEvent(new Event("theme"));
"""


@pytest.fixture
def shown(path: Path) -> Iterator[PageServer]:
    page = serve(path)
    yield page
    page.close()


def write(path: Path, *batches: Points) -> None:
    with contextlib.closing(tables.connect(path)) as connection:
        connection.execute("BEGIN")
        for points in batches:
            tables.insert(connection, MEASUREMENTS[points.measurement], tables.rows_of(points))
        connection.execute("COMMIT")


def served(seconds: int, begin_ns: int, boot_id: str) -> Points:
    count = np.arange(seconds)
    columns: dict[str, Any] = {"boot_id": [boot_id] * seconds, "actions": 10 * count, "batches": count, "steps_completed": 10 * count}
    return Points("server", RUN, columns, begin_ns + count * 10**9)


def episodes(ends_ns: np.ndarray, cut: bool = False) -> Points:
    count = len(ends_ns)
    baselines: dict[str, Any] = {} if cut else {"no_trade_return": np.zeros(count), "random_return": np.full(count, -2.0)}
    return Points("episode", RUN, {"return": np.full(count, 3.0), "profit": np.full(count, 0.1)} | baselines, ends_ns)


def state_of(browser: Browser, expected: str) -> str:
    """Wait for a state of the connection; its words."""
    wait_until(lambda: browser.script(CONNECTION)[0] == expected, f"the page to be {expected}")
    return str(browser.script(CONNECTION)[1])


def axis_words(browser: Browser) -> list[str]:
    """Draw every chart again and return the words on the axes of those that can be seen."""
    browser.script(WORDS)
    return list(wait_until(lambda: browser.script("return window.words"), "words on the axes"))


def test_a_run_that_ended_keeps_its_figures_and_is_not_called_live(path: Path, shown: PageServer, browser: Browser) -> None:
    write(path, episodes(NEWEST_NS - np.arange(600)[::-1] * 10**9), episodes(NEWEST_NS + np.arange(64), cut=True))
    write(path, served(600, NEWEST_NS - 600 * 10**9, "boot"))
    browser.open(shown.address)
    assert "no points since" in state_of(browser, "silent")
    figures = "return [...document.querySelectorAll('#returns b')].map((figure) => figure.textContent)"
    wait_until(lambda: browser.script(figures)[0], "the main chart's figures")
    assert browser.script(figures) == ["3", "3", "3", "3", "-2", "0"], "of the newest whole episodes"
    date = time.strftime("%b ", time.localtime(NEWEST_NS / 1e9))
    assert any(date in word for word in axis_words(browser)), "an axis of minutes says of which day"
    time_shown = "return document.querySelector('#returns .head').innerText"
    assert ":" not in browser.script(time_shown)
    browser.script("document.getElementById('returns').focus()")
    browser.press(ARROW_LEFT)
    wait_until(lambda: ":" in browser.script(time_shown) and date.strip() in browser.script(time_shown), "the cursor's time")
    assert "reward" in browser.script("return document.querySelector('#returns').closest('section').innerText"), "the unit"


def test_a_downtime_is_a_gap_and_the_restart_is_marked(path: Path, shown: PageServer, browser: Browser) -> None:
    write(path, served(300, NEWEST_NS - 1000 * 10**9, "one"), served(300, NEWEST_NS - 300 * 10**9, "two"))
    browser.open(shown.address)
    browser.script("document.getElementById('actions-per-second').scrollIntoView()")
    wait_until(lambda: any(browser.script(COLOURED)), "the curve")
    coloured = browser.script(COLOURED)
    begin, end = coloured.index(True), len(coloured) - coloured[::-1].index(True)
    middle = coloured[begin + (end - begin) * 2 // 5 : begin + (end - begin) * 3 // 5]
    assert not any(middle), "a curve through a time in which nobody was there"
    assert browser.script("return document.getElementById('tiles').innerText").count("5,980") == 1, "steps of both processes"


def test_one_point_is_drawn_on_an_axis_of_seconds(path: Path, shown: PageServer, browser: Browser) -> None:
    write(path, episodes(np.array([NEWEST_NS])))
    browser.open(shown.address)
    painted = """
        const canvas = document.querySelector("#returns canvas");
        if (!canvas) return 0;
        const bytes = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let blue = 0;
        for (let at = 0; at < bytes.length; at += 4) blue += bytes[at] < 90 && bytes[at + 2] > 180 && bytes[at + 3] > 200;
        return blue;
    """
    wait_until(lambda: browser.script("return document.querySelector('#returns canvas') != null"), "the chart")
    words = axis_words(browser)
    assert any(":" in word for word in words), f"times of day, not {words}"
    assert browser.script(painted) > 5, "the point"


def test_an_empty_store_and_a_run_that_does_not_exist_are_not_called_live(path: Path, shown: PageServer, browser: Browser) -> None:
    browser.open(shown.address)
    assert state_of(browser, "empty") == "no points yet"
    write(path, served(200, time.time_ns() - 5 * 10**9, "boot"), episodes(time.time_ns() - np.arange(5)))
    assert state_of(browser, "live") == "live"
    wait_until(lambda: browser.script("return +document.getElementById('returns').dataset.points") > 0, "the chart")
    browser.script(
        "const run = document.getElementById('run'); run.add(new Option('typo', 'typo')); run.value = 'typo';"
        "run.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    assert state_of(browser, "unknown") == "no such run"
    assert browser.script("return document.querySelectorAll('.chart:not(.empty)').length") == 0, "nothing of the run before"
    assert browser.errors() == []
