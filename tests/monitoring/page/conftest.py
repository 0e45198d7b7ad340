"""Fixture: the file of an empty store."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyserver.monitoring.store.store import EmbeddedStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.sqlite"
    EmbeddedStore(path).close(60.0)
    return path
