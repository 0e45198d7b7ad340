"""The figures of a running pipeline at one moment, for the user."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from policyserver.client import ServerStats
from policyserver.monitoring.newest_tenth import newest_count, newest_means
from policyserver.monitoring.tail import Tail, mean
from policyserver.pipelines.forecast.regressor import skill
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.run_state import EPISODES_KEPT, ShownDecision
from policyserver.pipelines.server_watch import ServerWatch

_RATE_WINDOW_S = 10.0
_CURVE_POINTS = 40


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A moment of a run. Figures that are not known yet are NaN."""

    seconds: float
    """Seconds since the pipeline started."""
    episodes_open: int
    """Concurrent episodes."""
    episodes_finished: int
    """Episodes that have ended, however."""
    steps: int
    """Steps so far."""
    steps_wanted: int | None
    """Steps after which the run ends."""
    steps_per_s: float
    """Steps per second, of the last ten seconds."""
    latency_p50_ms: float
    """Half of the actions took at most this long, milliseconds."""
    latency_p99_ms: float
    """99 of 100 actions took at most this long, milliseconds."""
    fallbacks: int
    """Fallback actions."""
    lost: int
    """Episodes that were lost or abandoned."""
    return_mean: float
    """Mean return of the newest tenth of the whole episodes, in units of reward."""
    no_trade_mean: float
    """The same of the baseline that holds cash, on the same prices."""
    random_mean: float
    """The same of the baseline that acts at random, on the same prices."""
    return_curve: tuple[float, ...]
    """What `return_mean` was over the course of the run, after equal numbers of episodes."""
    skill: float
    """Regressor's skill over the last tenth of the steps; on recorded bars over all that were played."""
    decisions: tuple[ShownDecision, ...]
    """Newest decisions, oldest first."""
    server: ServerStats
    """Newest statistics of the server; all 0 before the first."""
    steps_dropped: int
    """Steps that the learner never saw because it was behind."""


class SnapshotTaker:
    """Takes snapshots of one run. Belongs to one thread."""

    def __init__(self, pipeline: Pipeline, watch: ServerWatch) -> None:
        """Look at `pipeline` and `watch`."""
        self._pipeline = pipeline
        self._watch = watch
        self._past: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def take(self) -> Snapshot:
        """Take a snapshot now."""
        pipeline, run = self._pipeline, self._pipeline.run
        results = run.newest_tenth()
        forecasts = run.newest_forecasts()
        latency = pipeline.latency
        return Snapshot(
            seconds=pipeline.seconds,
            episodes_open=pipeline.config.episodes.concurrent,
            episodes_finished=sum(run.endings.values()),
            steps=run.steps,
            steps_wanted=pipeline.config.episodes.steps,
            steps_per_s=self._rate(run.steps),
            latency_p50_ms=1e3 * latency.quantile_s(0.5),
            latency_p99_ms=1e3 * latency.quantile_s(0.99),
            fallbacks=pipeline.fallbacks,
            lost=run.endings["lost"] + run.endings["abandoned"],
            return_mean=mean(results["return"]),
            no_trade_mean=mean(results["no_trade"]),
            random_mean=mean(results["random"]),
            return_curve=_curve(run.episodes),
            skill=skill(forecasts["squared_error"], forecasts["squared_return"])[0],
            decisions=tuple(run.decisions),
            server=self._watch.latest or ServerStats(),
            steps_dropped=self._watch.steps_dropped,
        )

    def _rate(self, steps: int) -> float:
        """Return the steps per second since about ten seconds ago."""
        now = time.monotonic()
        self._past.append((now, steps))
        while len(self._past) > 2 and now - self._past[1][0] > _RATE_WINDOW_S:
            self._past.popleft()
        then, before = self._past[0]
        return (steps - before) / (now - then) if now > then else math.nan


def _curve(episodes: Tail) -> tuple[float, ...]:
    """Return the mean return as it was at points of the run, the oldest first; of a very long run only of its later part."""
    returns, count = episodes.newest(EPISODES_KEPT)["return"], episodes.count
    first = count - len(returns)
    points = np.unique(np.linspace(first, count, _CURVE_POINTS + 1).astype(np.int64)[1:])
    known = [point for point in points.tolist() if point - newest_count(point) >= first]
    return tuple(newest_means(returns.reshape(-1, 1), np.array(known, np.int64), first)[:, 0].tolist())
