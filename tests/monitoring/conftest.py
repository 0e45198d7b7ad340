"""Fixtures: a running InfluxDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import InfluxServer, MissingService


@pytest.fixture
def influx(tmp_path: Path, missing_service: MissingService) -> Iterator[InfluxServer]:
    """An InfluxDB that is not started yet."""
    server = InfluxServer(tmp_path / "influx", missing_service)
    yield server
    server.kill()
