"""Runs that are recorded in a folder, and their replays by command."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyserver.common.settings import load
from policyserver.monitoring.sink import MultiSink
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.forecast_start import saved_forecasts
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.replay.event_file import EventLogReader
from policyserver.pipelines.replay.run_record import recorded_run
from policyserver.pipelines.replay.turn import Turn
from policyserver.pipelines.serving import PolicyService
from policyserver.pipelines.summary import Summary
from tests.commands import run_here
from tests.pipelines.policy_double import PolicyDouble

WAIT_S = 100.0

RUN_FILES = {"pipeline.toml", "run.json", "events.arrows", "events.crc32", "summary.json"}
"""What `run` and `demo` keep in a run's folder."""


def assert_kept(folder: Path, summary: Path, steps: int) -> None:
    """Check that a run's folder has all of them, with its settings, and with the summary that was written elsewhere, too."""
    assert {path.name for path in folder.iterdir()} >= RUN_FILES
    assert (folder / "summary.json").read_bytes() == summary.read_bytes()
    assert json.loads(summary.read_text()).keys() == {field.name for field in dataclasses.fields(Summary)}
    assert load(PipelineConfig, folder / "pipeline.toml").episodes.steps == steps


def record(
    config: PipelineConfig, folder: Path, service: PolicyService | None = None, on_full: Callable[[], None] = lambda: None
) -> Pipeline:
    """Run a pipeline to its end against a service in memory, and record it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        recorded_run(config, folder, on_full) as log,
        saved_forecasts(pipeline := Pipeline(config, service or PolicyDouble(), MultiSink(), turns=log), folder),
        pipeline.running(),
    ):
        assert pipeline.wait(WAIT_S)
    return pipeline


def turns_of(folder: Path) -> list[Turn]:
    """Return the turns of a run's log."""
    return [turn for batch in EventLogReader(folder).batches() for turn in batch]


@dataclass
class Replayed:
    """What `policy-pipeline replay` said of a run."""

    status: int
    out: str
    err: str
    results: list[dict[str, Any]]

    @property
    def result(self) -> dict[str, Any]:
        """That of the only part of the run."""
        assert len(self.results) == 1, self.err
        (result,) = self.results
        return result


def replay(folder: Path, *options: str) -> Replayed:
    """Replay a run by the command."""
    file = folder.parent / f"{folder.name}.replay.json"
    file.unlink(missing_ok=True)
    ended = run_here("policy-pipeline", "replay", str(folder), "--json", str(file), *options)
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return Replayed(ended.returncode, ended.stdout, ended.stderr, results)


def assert_equal(folder: Path, steps: int) -> dict[str, Any]:
    """Replay a run of one part; it has to come out the same, bit by bit, and to have so many steps."""
    replayed = replay(folder)
    assert replayed.status == 0, replayed.out + replayed.err
    assert (replayed.result["exact"], replayed.result["equal"], replayed.result["steps"]) == (True, True, steps)
    return replayed.result
