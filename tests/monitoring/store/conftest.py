from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store will be, in a folder that is not there yet."""
    return tmp_path / "run" / "store.sqlite"
