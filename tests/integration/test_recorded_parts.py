"""One policy of a real server learns from simulated prices, then from recorded ones, and is frozen while it is tested."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from policyserver.client import PolicyClient, ServerStats
from policyserver.pipelines.config import PipelineConfig, PipelineRecordingConfig, PlayedEpisodesConfig, ServerConnectionConfig
from policyserver.pipelines.market.split import SplitConfig
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.run import run_pipeline
from policyserver.pipelines.runtime.stop_signals import StopSignals
from tests.commands import ctl_answer
from tests.live_server import Serving, serving
from tests.pipelines.recorded_market import minutes, recorded, write_symbol
from tests.services import wait_until

BATCH = 200
SERVER = f"seed = 7\n[algorithm.training]\ntrain_batch_size_per_learner = {BATCH}\nminibatch_size = 100\nnum_epochs = 2\n"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def trained(stats: ServerStats) -> int:
    return stats.training.steps_total if stats.training else 0


def settled(observer: PolicyClient, server: Serving) -> ServerStats:
    """Return what the server counts once the learner is through with what it was given: what is left is less than a batch."""
    found: list[ServerStats] = []

    def is_through() -> bool:
        status, stats = ctl_answer(server.run_folder, "status"), observer.stats()
        given = stats.steps_completed - stats.steps_untrained - stats.steps_dropped
        found.append(stats)
        return bool(
            status["learning"] == "collecting"
            and trained(stats) == status["steps_total"] > given - BATCH
            and stats.weights_seq_no == status["weights_seq_no"]
        )

    wait_until(is_through, "the learner's rest", 200.0)
    return found[-1]


def test_a_policy_learns_in_two_stages_and_not_from_what_it_is_tested_on(tmp_path: Path) -> None:
    for name in ("bars", "server"):
        (tmp_path / name).mkdir()
    for place, name in enumerate(("AAA", "BBB")):
        write_symbol(tmp_path / "bars" / f"{name}.csv", minutes(10), place)
    split = SplitConfig(test_from="2024-01-08")
    on_files = PricesConfig(recorded=recorded(tmp_path / "bars"), bars_per_episode=50, warmup_bars=0, split=split, skip_frame=2)
    stages = (PricesConfig(bars_per_episode=50), on_files, dataclasses.replace(on_files, split=dataclasses.replace(split, play="test")))
    with serving(SERVER, tmp_path / "server") as server, PolicyClient(server.address) as observer:
        seen, runs = [observer.stats()], list[Pipeline]()
        for stage in stages:
            config = PipelineConfig(
                server=ServerConnectionConfig(address=server.address),
                episodes=PlayedEpisodesConfig(concurrent=8, steps=2_000),
                prices=stage,
                recording=PipelineRecordingConfig(store=None),
            )
            runs.append(run_pipeline(config, StopSignals()))
            if stage is not stages[-1]:
                wait_until(lambda: trained(observer.stats()) > trained(seen[-1]), "the learner learns", 200.0)
            seen.append(settled(observer, server))
    for before, after in itertools.pairwise(seen[:3]):
        assert trained(after) - trained(before) >= 1_000
        assert after.weights_seq_no > before.weights_seq_no
    assert seen[3].weights_seq_no == seen[2].weights_seq_no
    assert trained(seen[3]) == trained(seen[2])
    assert seen[3].steps_completed - seen[2].steps_completed >= 2_000
    assert [dict(run.run.spans).keys() for run in runs] == [set(), {"train"}, {"test"}]
    assert sum(run.reward_sum for run in runs) == pytest.approx(seen[3].reward_sum - seen[0].reward_sum, abs=1e-6)
