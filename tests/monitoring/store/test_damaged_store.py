"""A damaged store is put aside, whole as it is, and recording goes on in a new one."""

from __future__ import annotations

import json
import logging
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from policyserver.monitoring.page.server import PageServer
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.store import EmbeddedStore, StoreConfig
from tests.monitoring.store.test_store import steps

PAGE_BYTES = 4096


def overwrite(path: Path, begin: int, end: int) -> None:
    content = bytearray(path.read_bytes())
    content[begin:end] = b"\xa5" * (min(end, len(content)) - begin)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"not a database, " * 500),
    "its first page": lambda path: overwrite(path, 100, PAGE_BYTES),
    "its end is missing": lambda path: path.write_bytes(path.read_bytes()[: 2 * PAGE_BYTES]),
}


def rewards(path: Path) -> float:
    with closing(StoreReader(path)) as reader:
        return reader.ledger("r1").reward_sum


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_is_put_aside_with_a_warning_and_recording_goes_on(
    damage: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.sqlite"
    first = EmbeddedStore(path)
    first.write(steps(np.ones(500)))
    first.close(60.0)
    damage(path)
    with caplog.at_level(logging.WARNING):
        store = EmbeddedStore(path, StoreConfig(retry_interval_s=0.05))
        store.write(steps(np.full(7, 2.0)))
        stored = store.flush(60.0)
        store.close(60.0)
    assert stored
    assert rewards(path) == 14.0
    (aside,) = tmp_path.glob("store.sqlite.damaged-*Z")
    assert f"the store {path} is damaged" in caplog.text
    assert f"put aside as {aside}" in caplog.text


def record_and_damage(path: Path) -> None:
    """Record 5,000 steps, and damage a page of theirs that is met when more are written."""
    first = EmbeddedStore(path)
    first.write(steps(np.ones(5000)))
    first.close(60.0)
    with closing(sqlite3.connect(path)) as plain:
        (root,) = plain.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'step'").fetchone()
    overwrite(path, (root - 1) * PAGE_BYTES, root * PAGE_BYTES)


@pytest.mark.long
def test_a_store_that_turns_out_to_be_damaged_while_it_is_written_is_put_aside_once_by_both_that_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.sqlite"
    record_and_damage(path)
    stores = [EmbeddedStore(path, StoreConfig(retry_interval_s=0.05)) for _ in range(2)]
    for number, store in enumerate(stores):
        store.write(steps(np.ones(10), {"run": "r1", "worker": f"w{number}"}))
    assert [store.flush(60.0) for store in stores] == [True, True]
    for store in stores:
        store.close(60.0)
    assert rewards(path) == 20.0
    assert len(list(tmp_path.glob("store.sqlite.damaged-*Z"))) == 1
    assert caplog.text.count("put aside as") == 1


def test_what_is_no_damage_is_not_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE VIEW step AS SELECT 1 AS id")
    with pytest.raises(sqlite3.OperationalError):
        EmbeddedStore(path)
    assert [file.name for file in tmp_path.iterdir() if "damaged" in file.name] == []


@pytest.mark.long
def test_a_page_that_is_watched_goes_on_with_the_new_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "store.sqlite"
    record_and_damage(path)
    store, page = EmbeddedStore(path, StoreConfig(retry_interval_s=0.05)), PageServer()
    page.start(path)
    try:
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{page.address}/snapshot", timeout=60.0)
        store.write(steps(np.full(7, 2.0)))
        assert store.flush(60.0)
        with urllib.request.urlopen(f"{page.address}/snapshot", timeout=60.0) as answer:
            shown = json.load(answer)
    finally:
        page.close()
        store.close(60.0)
    assert (shown["choices"]["run"], len(shown["decisions"])) == ("r1", 7)
    assert "Traceback" not in caplog.text
