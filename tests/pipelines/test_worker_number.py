"""Pipelines with one seed against one server play episodes of their own, unless they are told to play the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policyserver.monitoring.store.reader import StoreReader
from policyserver.pipelines.config import PipelineConfig, PipelineRecordingConfig, PlayedEpisodesConfig, ServerConnectionConfig
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.run import run_pipeline
from policyserver.pipelines.runtime.stop_signals import StopSignals
from tests.server.serving_loop_harness import ServingLoopHarness, running_serving_loop

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def serve() -> Iterator[ServingLoopHarness]:
    with running_serving_loop() as running:
        yield running


def episodes_of(serve: ServingLoopHarness, store: Path, **options: Any) -> set[tuple[str, int]]:
    """Run a pipeline of four episodes; return what was drawn for them, and the seed that is recorded with it."""
    config = PipelineConfig(
        seed=4,
        server=ServerConnectionConfig(address=serve.address),
        episodes=PlayedEpisodesConfig(concurrent=4, steps=20),
        prices=PricesConfig(bars_per_episode=5, warmup_bars=8),
        recording=PipelineRecordingConfig(store=store, run_folder=None),
        **options,
    )
    run_pipeline(config, StopSignals())
    reader = StoreReader(store)
    rows = reader.newest("episode", "pipeline", limit=100)
    reader.close()
    return {(row["parameters"], row["seed"]) for row in rows}


@pytest.mark.long
def test_two_pipelines_with_one_seed_play_episodes_of_their_own(
    serve: ServingLoopHarness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "policyserver.pipelines")
    first, second = (episodes_of(serve, tmp_path / f"{name}.sqlite") for name in ("first", "second"))
    assert len(first) >= 4
    assert not {parameters for parameters, _ in first} & {parameters for parameters, _ in second}
    assert {seed for _, seed in first} == {4}, "the only one of its seed plays what the seed says"
    assert "run pipeline, worker number 0" in caplog.text
    assert f"run pipeline, worker number 1, on the server without an id at {serve.address}" in caplog.text, "which server it plays on"


@pytest.mark.long
def test_the_recorded_seed_plays_the_episodes_again(serve: ServingLoopHarness, tmp_path: Path) -> None:
    played = episodes_of(serve, tmp_path / "first.sqlite", worker_number=3)
    ((seed,),) = ({seed for _, seed in played},)
    assert seed == PipelineConfig(seed=4, worker_number=3).episodes_seed == PipelineConfig(seed=seed, worker_number=0).episodes_seed
    assert 4 < seed < 2**63


@pytest.mark.long
def test_pipelines_of_one_number_play_the_same(serve: ServingLoopHarness, tmp_path: Path) -> None:
    first, second = (episodes_of(serve, tmp_path / f"{name}.sqlite", worker_number=0) for name in ("first", "second"))
    assert len(first & second) >= 4
