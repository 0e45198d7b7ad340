"""Every block of the README and of the site runs as it stands, in order: one page is one story, with one server wherever it needs one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest

from tests.document_story import Story
from tests.documents import OUTPUT, PAGES, ROOT, WRITTEN_FROM_RUNS, Block, blocks
from tests.live_server import Serving
from tests.services import InfluxServer, wait_until

INFLUX_PORT, BUCKET = 8086, "trading"
BESIDE_CARTPOLE = "<!-- beside: policy-server serve --config examples/cartpole_server.toml -->"
"""Says that a page goes on with the tutorial's server, which a test has for the session."""


def run_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language != OUTPUT and not block.not_run]


def parameters() -> list[object]:
    """Return the pages with blocks to run; those that start programs that serve, and so Ray, are slow."""
    found: list[object] = []
    for page in sorted(set(PAGES) - WRITTEN_FROM_RUNS):
        texts = [block.text for block in run_blocks(page)]
        starts = any(command in text for text in texts for command in ("policy-server serve", "python examples/"))
        if texts:
            found.append(pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.slow] if starts else []))
    return found


@pytest.mark.timeout(1300)
@pytest.mark.parametrize("page", parameters())
def test_every_block_of_a_page_runs(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest, missing_service: Callable[[str], NoReturn]
) -> None:
    text = page.read_text(encoding="utf-8")
    ports: dict[int, int] = {}
    if BESIDE_CARTPOLE in text:
        server: Serving = request.getfixturevalue("cartpole_serving")
        ports[9900] = int(server.address.rpartition(":")[2])
    influx = None
    if any(str(INFLUX_PORT) in block.text for block in run_blocks(page)):
        influx = InfluxServer(tmp_path / "influx", missing_service)
        influx.start()
        influx.query(f'CREATE DATABASE "{BUCKET}"')
        ports[INFLUX_PORT] = int(urlsplit(influx.url).port or 0)
    folder = tmp_path / "story"
    folder.mkdir()
    try:
        with Story(folder, ports) as story:
            for block in run_blocks(page):
                story.run(block)
            if influx is not None:
                recorded = f'SELECT count(uptime_s) FROM "{BUCKET}"."autogen"."server"'
                wait_until(lambda: influx.query(recorded), "points of the server in InfluxDB")
    finally:
        if influx is not None:
            influx.kill()
