"""What a real browser makes of the live page: it draws every panel, keeps them up to date, and does what its user chooses."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.page.server import PageServer
from policyserver.monitoring.panels import PANELS
from policyserver.monitoring.points import Points
from policyserver.monitoring.store.store import EmbeddedStore
from tests.browser import ARROW_LEFT, ESCAPE, TAB, Browser
from tests.monitoring.filled_store import SYMBOLS, FilledRun, fill
from tests.monitoring.page_harness import RUN, serve, step
from tests.ports import free_address
from tests.services import wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

CHARTS = sum(bool(panel.group) for panel in PANELS)

PAINTED = """
    const bytes = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const painted = (chart) => [...chart.querySelectorAll("canvas")].some((canvas) => bytes(canvas).some((byte) => byte));
    return [...document.querySelectorAll(".chart")].filter((chart) => !painted(chart)).map((chart) => chart.id);
"""


def drawn_points(browser: Browser, chart: str) -> int:
    return int(browser.script(f"return document.getElementById('{chart}').dataset.points") or 0)


def choose(browser: Browser, select: str, value: str) -> None:
    browser.script(
        f"const select = document.getElementById('{select}'); select.value = {json.dumps(value)};"
        "select.dispatchEvent(new Event('change', {bubbles: true}))"
    )


def wait_drawn(browser: Browser) -> None:
    wait_until(lambda: browser.script("return document.querySelectorAll('#decisions tr').length == 12"), "twelve decisions")
    wait_until(lambda: drawn_points(browser, "steps") > 0, "the last section")


def test_every_panel_is_drawn_without_an_error(page: PageServer, browser: Browser) -> None:
    browser.open(page.address)
    wait_drawn(browser)
    browser.script("document.body.style.zoom = 0.3; window.dispatchEvent(new Event('resize'))")  # charts that can't be seen are not drawn
    wait_until(lambda: browser.script(PAINTED) == [], "each chart to have pixels")
    assert browser.script("return document.querySelectorAll('.chart').length") == CHARTS
    assert browser.script("return [...document.querySelectorAll('.chart.empty')].map((chart) => chart.id)") == []
    assert "15,104" in browser.script("return document.body.innerText"), "steps of the server's newest answer"
    assert browser.script("return document.title") == "run-1 · Policy server"
    assert browser.errors() == []


def test_the_tile_is_the_mean_of_the_newest_tenth_of_the_whole_episodes(
    page_store: EmbeddedStore, page: PageServer, browser: Browser
) -> None:
    returns = np.arange(436.0)  # with the 64 of the store 500, of which the newest 50 count
    whole: dict[str, Any] = {
        "return": returns,
        "no_trade_return": returns - 1.0,
        "random_return": returns - 2.0,
        "profit": (returns - 0.5) / 1e3,
    }
    cut: dict[str, Any] = {"return": np.full(64, 7e6), "profit": np.full(64, -9.0)}
    page_store.write(Points("episode", RUN, whole, time.time_ns() + np.arange(436)))
    page_store.write(Points("episode", RUN, cut, time.time_ns() + 10**6 + np.arange(64)))
    assert page_store.flush(60.0)
    browser.open(page.address)
    wait_drawn(browser)
    text = browser.script("return document.getElementById('tiles').innerText")
    assert "410.5" in text, "the mean of 386 to 435"
    assert "random 408.5, no-trade 409.5" in text
    browser.script("document.getElementById('profit').scrollIntoView()")
    shown = "return document.querySelector('#profit b').textContent"
    assert wait_until(lambda: browser.script(shown), "the profit") == "41 %"


def test_new_points_are_shown_as_they_come_and_after_the_server_was_restarted(page_store: EmbeddedStore, browser: Browser) -> None:
    newest = "return document.querySelector('#decisions tr')?.innerText"
    page = serve(page_store.path, free_address())  # which it comes back to
    browser.open(page.address)
    wait_drawn(browser)
    page_store.write(step(770, action=0, reward=-0.25))
    row = wait_until(lambda: "episode-77" in browser.script(newest) and browser.script(newest), "the next decision")
    assert "sell" in row
    assert "-0.2500" in row
    drawn = drawn_points(browser, "returns")
    times_ns = time.time_ns() + np.arange(20) * 10**9
    page_store.write(Points("episode", RUN, {"return": np.full(20, 5.0), "no_trade_return": np.zeros(20)}, times_ns))
    wait_until(lambda: drawn_points(browser, "returns") > drawn + 5, "the chart to grow")

    page.close()
    wait_until(lambda: browser.script("return document.querySelector('.lost') != null"), "the page to notice that the server is gone")
    page_store.write(step(990))
    page = serve(page_store.path, page.address.removeprefix("http://"))
    wait_until(lambda: "episode-99" in browser.script(newest), "the page to go on")
    wait_until(lambda: browser.script("return document.querySelector('.live') != null"), "the page to say that the run lives")
    page.close()


def test_actions_of_any_scheme_are_shown_in_its_own_words(page_store: EmbeddedStore, browser: Browser) -> None:
    page = serve(page_store.path)
    browser.open(page.address)
    wait_drawn(browser)
    texts = ("cash 12% 50% 38%", "+50%", "buy close", "+100% limit -0.6 stop 1.0", "-0.5", "<b>own</b> & “words”")
    for number, text in enumerate(texts):
        page_store.write(step(800 + number, action=text))
    page_store.write(step(806, action=0))
    cells = (
        "return [...document.querySelectorAll('#decisions tr td:nth-child(7)')].slice(0, 7).map((cell) => [cell.innerText, cell.className])"
    )
    shown = [["sell", "sell"], *([text, ""] for text in reversed(texts))]
    wait_until(lambda: browser.script(cells) == shown, "the decisions")
    assert browser.errors() == []
    page.close()


def test_filters_and_the_range_change_what_is_drawn_and_the_address(page_store: EmbeddedStore, browser: Browser) -> None:
    fill(page_store.path, FilledRun("run-0", policy="DQN"), steps=64 * 20, end_ns=time.time_ns() - 3600 * 10**9)
    page = serve(page_store.path)
    browser.open(page.address)
    wait_drawn(browser)
    whole = drawn_points(browser, "steps")
    symbols = "return [...new Set([...document.querySelectorAll('#decisions tr td:nth-child(3)')].map((cell) => cell.innerText))].sort()"
    assert browser.script(symbols) == list(SYMBOLS)
    reached = "return document.querySelector('#episodes-that-reached-the-bar b').textContent"
    wait_until(lambda: browser.script(reached) == "64", "the running episodes")

    choose(browser, "symbol", "CCC")
    wait_until(lambda: browser.script(symbols) == ["CCC"], "one symbol alone")
    wait_until(lambda: browser.script(reached) == "16", "its episodes alone")
    browser.script("history.back()")
    wait_until(lambda: browser.script(reached) == "64", "all symbols again")
    assert browser.script("return document.getElementById('symbol').value") == ""

    choose(browser, "policy", "nobody's")
    browser.open(f"{page.address}/?range=20")
    wait_until(lambda: 0 < drawn_points(browser, "steps") < whole / 2, "the range to be shorter")
    assert browser.script("return document.getElementById('range').value") == "20"
    choose(browser, "range", "")
    wait_until(lambda: drawn_points(browser, "steps") == whole, "the whole run")

    choose(browser, "run", "run-0")
    wait_until(lambda: browser.script("return document.title").startswith("run-0"), "the other run")
    wait_until(lambda: 0 < drawn_points(browser, "steps") < whole / 2, "its steps")
    assert browser.script("return location.search") == "?run=run-0"
    assert browser.errors() == []
    page.close()


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_dark_or_light_as_the_system_is_or_as_the_reader_chose(page: PageServer, browser: Browser, dark: bool) -> None:
    def colours() -> Any:
        return browser.script("return [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]")

    def pixel() -> Any:
        """Return the colour in the middle of the histogram, which is transparent before it is drawn."""
        return browser.script("""
            const canvas = document.querySelector("#steps canvas");
            if (!canvas) return [0, 0, 0, 0];
            const {width, height} = canvas;
            return [...canvas.getContext("2d").getImageData(width / 2, height / 2, 1, 1).data];
        """)

    light, night = ["light", "rgb(246, 247, 249)"], ["dark", "rgb(15, 18, 22)"]
    browser.set_system_colours("dark" if dark else "light")
    try:
        browser.open(page.address)
        wait_drawn(browser)
        assert colours() == (night if dark else light)
        browser.script("document.getElementById('steps').scrollIntoView()")  # charts that can't be seen are not drawn
        wait_until(lambda: pixel()[3] == 255, "the histogram to be drawn")
        before = pixel()
        choose(browser, "theme", "light" if dark else "dark")
        assert colours() == (light if dark else night)
        wait_until(lambda: pixel() != before, "the charts to change their colours")
        browser.open(page.address)
        assert colours() == (light if dark else night), "it is remembered"
        choose(browser, "theme", "")
        assert colours() == (night if dark else light)
    finally:
        browser.set_system_colours("")


def test_it_can_be_used_with_the_keyboard_alone(page: PageServer, browser: Browser) -> None:
    focused = "return document.activeElement.id"
    browser.open(page.address)
    wait_drawn(browser)
    visited = []
    for _ in range(7):
        browser.press(TAB)
        visited.append(browser.script(focused))
    assert visited == ["run", "symbol", "policy", "range", "theme", "returns", "reward-so-far-by-bar"]
    assert browser.script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    shown = "return document.querySelector('#reward-so-far-by-bar b').textContent"
    newest = browser.script(shown)
    for _ in range(30):
        browser.press(ARROW_LEFT)
    wait_until(lambda: browser.script(shown) != newest, "the cursor to have moved to an earlier bar")
    browser.press(ESCAPE)
    wait_until(lambda: browser.script(shown) == newest, "the newest value again")

    browser.script("document.getElementById('symbol').focus()")
    browser.press("B")
    wait_until(lambda: "symbol=BBB" in browser.script("return location.search"), "the symbol to be chosen by its letter")
