"""CPU of a pipeline's own nodes for each step, beside what the bare calls of its River model cost in the same minute.

    python -m benchmarks.speed.pipeline_cpu 256 5    # 256 episodes for 5 s

There is neither a server nor a store: a service in this process answers with random actions, and points are made and forgotten.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.monitoring.points import Points
from policyserver.monitoring.sink import MultiSink, SinkStatistics
from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig
from policyserver.pipelines.forecast.block_forecaster import INPUTS
from policyserver.pipelines.forecast.regressor import RegressorConfig, build_model
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.runtime.thread_switching import SWITCH_INTERVAL_S

_ROUNDS = 4
_BARE_CALLS = 4_000


class RandomActions:
    """A policy service that answers at once: one of three actions, at random."""

    weights_seq_no = 1

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._asked = threading.local()

    def start_episodes(self, episodes: Sequence[str], training_enabled: bool) -> list[str]:
        """Take them."""
        return list(episodes)

    def get_actions(self, episode_ids: Sequence[str], observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Draw the actions."""
        self._asked.count = len(episode_ids)
        return self._rng.integers(3, size=len(episode_ids))

    def answered_by(self) -> npt.NDArray[np.int64]:
        """Return the version of each of the last answers."""
        return np.full(self._asked.count, self.weights_seq_no)

    def take_learner_wait_s(self) -> float:
        """Return that nothing was waited for."""
        return 0.0

    def log_actions(self, *args: Any, **options: Any) -> None:
        """Forget them."""

    def log_returns_batch(self, episode_ids: Sequence[str], rewards: Sequence[float]) -> None:
        """Forget them."""

    def end_episodes(self, *args: Any, **options: Any) -> None:
        """Forget them."""


class ForgetfulSink:
    """Takes points and forgets them."""

    def write(self, points: Points) -> None:
        """Forget them."""

    def flush(self, timeout_s: float) -> bool:
        """Return that nothing waits."""
        return True

    def close(self, timeout_s: float) -> None:
        """Have nothing to close."""

    def statistics(self) -> SinkStatistics:
        """Return zeros."""
        return SinkStatistics()


def bare_river_us() -> float:
    """Return the microseconds of CPU that one `predict_one` and one `learn_one` of the pipeline's model take."""
    model, rng = build_model(RegressorConfig()), np.random.default_rng(0)
    features = [dict(zip(INPUTS, row, strict=True)) for row in rng.normal(0.0, 0.01, (_BARE_CALLS, len(INPUTS))).tolist()]
    labels = rng.normal(0.0, 0.01, _BARE_CALLS).tolist()
    began_s = time.thread_time()
    for row, label in zip(features, labels, strict=True):
        model.predict_one(row)
        model.learn_one(row, label)
    return (time.thread_time() - began_s) * 1e6 / _BARE_CALLS


def pipeline_us(episodes: int, seconds: float) -> tuple[float, float]:
    """Return the microseconds of CPU of a step of a pipeline that runs for some seconds until it has made one, and its steps a second."""
    config = PipelineConfig(seed=1, worker_number=0, episodes=PlayedEpisodesConfig(concurrent=episodes))
    pipeline = Pipeline(config, RandomActions(), MultiSink([ForgetfulSink()]))
    began_s = time.process_time()
    with pipeline.running():
        pipeline.wait(seconds)
        while not pipeline.run.steps:  # on a busy machine
            pipeline.wait(seconds)
    return (time.process_time() - began_s) * 1e6 / pipeline.run.steps, pipeline.run.steps / pipeline.seconds


def measured(episodes: int, seconds: float) -> dict[str, float]:
    """Return the figures of some rounds of both, one after the other: medians, and the median of the rounds' ratios."""
    rounds = []
    for _ in range(_ROUNDS):
        before_us = bare_river_us()
        step_us, steps_per_s = pipeline_us(episodes, seconds / _ROUNDS)
        river_us = (before_us + bare_river_us()) / 2
        rounds.append((steps_per_s, step_us, river_us, step_us - river_us, step_us / river_us))
    names = ("steps_per_s", "cpu_us_per_step", "bare_river_us", "cpu_us_outside_river", "times_bare_river")
    return dict(zip(names, np.median(rounds, axis=0).tolist(), strict=True))


def main() -> None:
    """Print the figures as JSON."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sys.stdout.write(json.dumps(measured(int(sys.argv[1]), float(sys.argv[2]))) + "\n")


if __name__ == "__main__":
    main()
