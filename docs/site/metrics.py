"""Writes docs/metrics.md, the page of everything that is recorded, from the schema.

    python -m docs.site.metrics

Run it in the repository's root after every change of the schema; a test compares the page.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from policyserver.monitoring.schema import MEASUREMENTS, TAG_UNSET, TAGS, Measurement

PAGE = Path("docs/metrics.md")

_HEAD = f"""\
# Metrics

Everything that is recorded, in SQLite and in InfluxDB alike. Written by `make dashboards` from
[`monitoring/schema.py`](../monitoring/policyserver/monitoring/schema.py).

A measurement is a kind of point (in SQLite, a table). Timestamps are nanoseconds since 1970 (UTC), and no two points of a process have
the same. Tags are what one groups by; one that a point does not set is `{TAG_UNSET}`. A field's type is the same in every point: a `float`
is a float even where its value is whole. Where a field is unset, the point lacks it (SQLite has NULL there). Counters begin at 0 with the
process that counts, those "since the run began" with the run.
"""


def markdown() -> str:
    """Return the page."""
    used_by = {tag: ", ".join(f"`{m.name}`" for m in MEASUREMENTS.values() if tag in m.tags) for tag in TAGS}
    tags = _table(("tag", "meaning", "measurements"), [(f"`{tag}`", meaning, used_by[tag]) for tag, meaning in TAGS.items()])
    return "\n".join([_HEAD, "## Tags\n", tags, *(_section(measurement) for measurement in MEASUREMENTS.values())])


def _section(measurement: Measurement) -> str:
    """Return the part of one measurement."""
    rows = [(f"`{field.name}`", field.type.value, field.unit, field.meaning, field.unset) for field in measurement.fields]
    tags = ", ".join(f"`{tag}`" for tag in measurement.tags)
    meaning = measurement.meaning[0].upper() + measurement.meaning[1:]
    return f"## {measurement.name}\n\n{meaning}.\n\nTags: {tags}.\n\n{_table(('field', 'type', 'unit', 'meaning', 'unset'), rows)}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
