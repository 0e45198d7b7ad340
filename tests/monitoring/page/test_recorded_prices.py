"""What the page says of a run on recorded prices."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policyserver.monitoring.page.feed import Feed
from policyserver.monitoring.page.selection import PageSelection
from policyserver.monitoring.page.server import PageServer
from policyserver.monitoring.points import Points
from policyserver.monitoring.recorded_prices import RecordedPrices, note
from policyserver.monitoring.schema import MEASUREMENTS
from policyserver.monitoring.store import tables
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.store import EmbeddedStore
from tests.browser import Browser
from tests.monitoring.page_harness import RUN, step
from tests.services import wait_until

IN_SAMPLE = "In-sample: the policy learns from the bars that its returns are of (sp500, 1999-01-04 to 2018-12-31, 5,031 bars)"


def prices(recorded: bool, process: str = "csv") -> Points:
    """What a pipeline records of one symbol's prices when it begins."""
    fields: dict[str, Any] = {"recorded": recorded, "trained_on": True, "bars": 5_031}
    fields |= {"first_bar_s": 915_408_000.0, "last_bar_s": 1_546_214_400.0}
    return Points.one("prices", RUN | {"process": process, "symbol": "sp500"}, fields)


def test_a_span_of_whole_days_is_told_in_days_and_many_symbols_are_counted() -> None:
    first, last = (datetime(year, 1, 4, tzinfo=UTC).timestamp() for year in (1999, 2019))
    text = note([RecordedPrices(f"S{number}", True, 5_000, first, last) for number in range(9)])
    assert "(S0, S1, S2, S3 and 5 more, 1999-01-04 to 2019-01-04, 45,000 bars)" in text


@pytest.mark.long
def test_the_test_part_is_named_from_the_store_and_an_older_store_has_no_parts(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite")
    for part, symbol in (("test 1", "nasdaq"), ("test 0", "sp500"), ("test 1", "sp500")):
        fields = {"recorded": True, "trained_on": False, "bars": 100, "first_bar_s": 915_408_000.0, "last_bar_s": 1_546_214_400.0}
        store.write(Points.one("prices", RUN | {"process": "recorded", "symbol": symbol}, fields | {"span": part}))
    store.write(step(1))
    store.close(60.0)
    expected = "Test part: the policy does not learn (test 0, test 1: sp500, nasdaq, 1999-01-04 to 2018-12-31, 300 bars)"
    learnt = "if it had learnt, when each began, from the training before it alone."
    assert choices(store.path)["note"] == f"{expected}; out of sample {learnt}"
    with closing(tables.connect(store.path)) as connection:
        connection.execute("ALTER TABLE prices DROP COLUMN span")
    assert "(nasdaq, sp500, 1999-01-04" in choices(store.path)["note"]


def choices(path: Path) -> dict[str, Any]:
    with closing(StoreReader(path)) as reader:
        changes: dict[str, Any] = dict(Feed(reader, PageSelection()).changes())
    shown: dict[str, Any] = changes["choices"]
    return shown


@pytest.mark.long
@pytest.mark.parametrize("recorded", [True, False])
def test_the_page_is_told_that_results_on_files_are_in_sample_and_of_which_span(recorded: bool, tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite")
    store.write(prices(recorded))
    store.write(step(1))
    store.close(60.0)
    note = choices(store.path)["note"]
    assert note.startswith(IN_SAMPLE) if recorded else note == ""


@pytest.mark.long
def test_a_store_that_an_older_version_wrote_is_shown_without_a_note(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "store.sqlite")
    store.write(step(1))
    store.close(60.0)
    with closing(tables.connect(store.path)) as connection:
        connection.execute("DROP TABLE prices")
    assert choices(store.path)["note"] == ""
    with closing(StoreReader(store.path)) as reader:
        assert reader.newest_ids() == dict.fromkeys(MEASUREMENTS, 0) | {"step": 1}
        later = EmbeddedStore(store.path)
        later.write(prices(recorded=True))
        later.close(60.0)
        assert reader.newest_ids()["prices"] == 1
        assert [each.symbol for each in reader.recorded_prices("run-1")] == ["sp500"]


@pytest.mark.process
def test_a_browser_shows_the_note_above_the_figures(page: PageServer, page_store: EmbeddedStore, browser: Browser) -> None:
    browser.open(page.address)
    shown = "return getComputedStyle(document.getElementById('run-note')).display"
    wait_until(lambda: browser.script("return document.querySelectorAll('#decisions tr').length == 12"), "twelve decisions")
    assert browser.script(shown) == "none"
    page_store.write(prices(recorded=True))
    wait_until(lambda: browser.script(shown) != "none", "the note")
    assert browser.script("return document.getElementById('run-note').innerText").startswith(IN_SAMPLE)
    assert browser.errors() == []
