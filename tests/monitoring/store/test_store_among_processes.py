"""A store's file belongs to SQLite alone, however many threads and processes use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserver.monitoring.page.server import PageServer
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.store import EmbeddedStore
from tests.monitoring.store.test_store import steps

pytestmark = pytest.mark.process

OPEN_AND_CLOSE = """
import sys
from pathlib import Path
from policyserver.monitoring.store.store import EmbeddedStore
EmbeddedStore(Path(sys.argv[1])).close(10.0)
"""


def test_another_process_that_opens_and_closes_a_store_with_a_page_costs_no_point(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store = EmbeddedStore(path)
    page = PageServer()
    page.start(path)
    store.write(steps(np.ones(20)))
    assert store.flush(60.0)
    subprocess.run([sys.executable, "-c", OPEN_AND_CLOSE, str(path)], check=True, timeout=110)
    store.write(steps(np.ones(10)))
    assert store.flush(60.0)
    page.close()
    store.close(60.0)
    reader = StoreReader(path)
    assert reader.ledger("r1").steps == 30
    reader.close()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_no_test_gets_past_sqlite_to_a_store_that_its_process_has_open(suffix: str, tmp_path: Path) -> None:
    """The guard in tests/conftest.py, which holds the whole suite to it."""
    store = EmbeddedStore(tmp_path / "store.sqlite")
    try:
        with pytest.raises(AssertionError, match="beside SQLite"), (tmp_path / f"store.sqlite{suffix}").open("rb"):
            pass
        with pytest.raises(AssertionError, match="beside SQLite"):
            os.open(tmp_path / f"store.sqlite{suffix}", os.O_RDONLY)
    finally:
        store.close(60.0)
    assert (tmp_path / "store.sqlite").read_bytes(), "once it is closed, anybody may read it"
