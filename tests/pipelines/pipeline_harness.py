"""Runs a pipeline against a service in memory and keeps what it recorded."""

from __future__ import annotations

import threading
from typing import Any

from policyserver.monitoring.points import Points
from policyserver.monitoring.sink import MultiSink
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.pipeline import Pipeline
from tests.pipelines.policy_double import PolicyDouble

WAIT_S = 120.0


class Book(MultiSink):
    """Keeps all points as rows by measurement, with the tags that differ from row to row."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def write(self, points: Points) -> None:
        columns = {name: points.field_values(name) for name in points.columns} | dict(points.tag_columns)
        with self.lock:
            self.rows.setdefault(points.measurement, []).extend(
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            )


def play(settings: PipelineConfig, service: PolicyDouble | None = None) -> tuple[Pipeline, PolicyDouble, Book]:
    """Run a pipeline to its end."""
    service, book = service or PolicyDouble(), Book()
    with Pipeline(settings, service, book).running() as pipeline:
        assert pipeline.wait(WAIT_S)
    return pipeline, service, book
