"""A run whose every measurement is recorded by the code that records it in earnest; only the policy and the learner are doubles."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policyserver.client import ServerStats
from policyserver.monitoring.reports import training_point
from policyserver.monitoring.sink import Sink
from policyserver.pipelines.config import PipelineConfig, PipelineRecordingConfig, PlayedEpisodesConfig
from policyserver.pipelines.market.orders import OrderKind, OrderRequests
from policyserver.pipelines.market.rules import RulesConfig
from policyserver.pipelines.market.schemes.actions.action_scheme import View
from policyserver.pipelines.market.schemes.actions.sell_hold_buy import SellHoldBuy
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.server.processes.training_report import STEPS_BEHIND, VERSIONS_BEHIND, Progress, training_report
from tests.pipelines.policy_double import PolicyDouble


@dataclass(frozen=True, slots=True)
class WithLimits(SellHoldBuy):
    """With each order a limit that isn't reached, good for one bar."""

    def orders(self, state: Any, view: View, rows: Any, actions: Any) -> list[OrderRequests]:
        (order,) = SellHoldBuy.orders(self, state, view, rows, actions)
        assert isinstance(order, OrderRequests)
        kinds, half = np.full(len(order.rows), int(OrderKind.LIMIT)), view.accounts.price[order.rows, 0] / 2
        return [order, OrderRequests(order.rows, order.symbol, kinds, np.ones(len(kinds)), half, np.ones_like(kinds))]


WITH_REFUSALS = RulesConfig(actions="python:tests.recorded_run.WithLimits", risk=({"name": "order_rate", "orders": 6, "bars": 10},))
"""Rules by which some orders have a price, and some are refused: so every measurement has points with all its fields."""


_ITERATION_S = 0.25
_END_S = 60.0


class CountingDouble(PolicyDouble):
    """Says about itself what a policy server says."""

    def __init__(self, pause_s: float = 0.0) -> None:
        super().__init__()
        self._pause_s = pause_s

    def get_actions(self, episode_ids: Sequence[str], observations: Any) -> Any:
        time.sleep(self._pause_s)
        return super().get_actions(episode_ids, observations)

    def stats_by_endpoint(self) -> dict[str, ServerStats]:
        return {"double": self.stats()}

    def stats(self) -> ServerStats:
        with self.lock:
            heard = list(self.episodes.values())
            rewards = [reward for each in heard for reward in each.rewards]
            finished = [sum(each.rewards) for each in heard if each.ended]
            return ServerStats(
                boot_id="double",
                uptime_s=1.0,
                clients_connected=1,
                episodes_open=len(self.open_episodes()),
                episodes_started=len(heard),
                episodes_finished=len(finished),
                actions=sum(len(each.actions) for each in heard),
                batches=sum(call == "get" for call, _ in self.calls),
                reward_sum=sum(rewards),
                steps_completed=len(rewards),
                steps_handed_off=len(rewards),
                weights_seq_no=self.weights_seq_no,
                return_mean=sum(finished) / len(finished) if finished else None,
            )


def record_run(sink: Sink, run: str, steps: int, *, pause_s: float = 0.0) -> tuple[Pipeline, CountingDouble]:
    """Run a pipeline of `steps` steps to its end, while training iterations are recorded too; return it and its service.

    Args:
        sink: Where it is recorded.
        run: Its name.
        steps: Of all episodes together.
        pause_s: What the service waits before each answer, so that the run takes its time on a fast machine, too.
    """
    recording = PipelineRecordingConfig(run=run, policy="PPO", store=None)
    config = PipelineConfig(episodes=PlayedEpisodesConfig(steps=steps), rules=WITH_REFUSALS, recording=recording)
    service = CountingDouble(pause_s)
    pipeline = Pipeline(config, service, sink)
    with pipeline.running(), _watched(service, pipeline, sink):
        progress = _record_iteration(sink, run, Progress())
        while not pipeline.wait(_ITERATION_S):
            progress = _record_iteration(sink, run, progress)
        assert pipeline.wait(_END_S)
    return pipeline, service


@contextmanager
def _watched(service: CountingDouble, pipeline: Pipeline, sink: Sink) -> Iterator[None]:
    watch = ServerWatch(service, sink, pipeline.tags)
    watch.start()
    try:
        yield
    finally:
        assert watch.stop()


def _record_iteration(sink: Sink, run: str, before: Progress) -> Progress:
    """Record what the daemon records of an RLlib result."""
    result = {
        "env_runners": {
            "num_env_steps_sampled": 400,
            "num_episodes": 2,
            "episode_return_mean": -1.5,
            VERSIONS_BEHIND: 200,
            **dict.fromkeys(STEPS_BEHIND, 50),
        },
        "learners": {
            "default_policy": {
                "total_loss": 0.5,
                "mean_kl_loss": 0.01,
                "entropy": 1.0,
                "default_optimizer_learning_rate": 5e-4,
                "weights_seq_no": before.weights_seq_no + 1,
            }
        },
    }
    report = training_report(
        result, before, seconds=_ITERATION_S, learn_seconds=0.1, checkpoint=Path("runs/checkpoint-1"), effective_sample_share=0.9
    )
    assert report is not None
    sink.write(training_point({"run": run, "policy": "PPO", "worker": "server-1"}, report))
    return report.progress
