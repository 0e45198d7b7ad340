"""docs/metrics.md is what the schema of the points says."""

from __future__ import annotations

from pathlib import Path

from docs.site.metrics import PAGE, markdown

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_schema_says() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == markdown(), "stale: run `make dashboards` and commit the result"
