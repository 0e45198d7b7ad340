"""Writes docs/openmetrics.md, the page of everything at /metrics, from what a server and a pipeline answer.

    python -m docs.site.openmetrics

Run it in the repository's root after a change of what is answered; a test compares the page.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.metrics_core import Metric

from policyserver.monitoring.sink import MultiSink
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.pipeline_metrics import PipelineMetrics
from policyserver.server.daemon.daemon_metrics import DaemonMetrics

PAGE = Path("docs/openmetrics.md")

_HEAD = """\
# OpenMetrics

Everything at `/metrics`. Written by `make dashboards` from what a server and a pipeline answer. A counter's samples end in `_total`, those
of a histogram in `_bucket`, `_sum` and `_count`. `process` names a serving process, as the tag `worker` does in what is
[recorded](metrics.md). A figure that is unknown has no sample. How to scrape it: [Monitoring](guides/monitoring.md#prometheus).
"""


def families() -> dict[str, list[Metric]]:
    """Return what is answered, by the kind of process."""
    server = DaemonMetrics(Path(), Path("store.sqlite"))
    return {"policy-server": list(server.collect()), "policy-pipeline": list(PipelineMetrics(PipelineConfig(), MultiSink()).collect())}


def markdown() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(f"## {process}\n\n{_table(answered)}" for process, answered in families().items())])


def _table(answered: Iterable[Metric]) -> str:
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for family in answered:
        labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
        lines.append(f"| `{family.name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
