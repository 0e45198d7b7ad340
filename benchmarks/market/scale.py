"""The scale of learning.md: what a rule of one line and the optimum earn on the episodes whose returns stand for a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.market.page import pair
from benchmarks.market.reference_policies import mean_reversion_rule, optimum
from policyserver.common.settings import load
from policyserver.monitoring.newest_tenth import newest_count
from policyserver.monitoring.store.reader import StoreReader
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.demo.demo import DemoResult
from policyserver.pipelines.demo.setup import STORE_FILE
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.replay.run_folder import PIPELINE_FILE
from policyserver.pipelines.run import source_of
from policyserver.pipelines.run_state import EPISODES_KEPT
from policyserver.pipelines.summary import standard_error

_CERTAIN = 3.0
"""Standard errors from which on a difference over the seeds is taken for one."""


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Returns of each of the last whole episodes of a run, in units of reward."""

    rule: FloatArray
    """Of the rule of one line."""
    optimum: FloatArray
    """Of the policy that knows the parameters."""

    def cells(self) -> tuple[str, str]:
        """Return both as means with their standard errors."""
        return _with_error(self.rule), _with_error(self.optimum)


def scale_of(result: DemoResult) -> Scale:
    """Play the rule and the optimum on the last whole episodes of a run.

    Raises:
        ValueError: the run's prices are neither ou nor gbm without drift.
    """
    config = load(PipelineConfig, result.folder / PIPELINE_FILE)
    episodes = _episodes(result, config)
    if not episodes:
        return Scale(np.empty(0), np.empty(0))
    rules = Rules.of(config.rules)
    return Scale(mean_reversion_rule(rules, episodes).returns, optimum(rules, episodes).returns)


def t_over_random(result: DemoResult) -> float:
    """Return t of the paired differences between the policy and random actions on the last whole episodes; NaN for fewer than 2."""
    gains = np.array([row["return"] - row["random_return"] for row in _last_whole(result)])
    error = standard_error(gains) if len(gains) > 1 else math.nan
    return float(gains.mean() / error) if error > 0.0 else math.nan


def _episodes(result: DemoResult, config: PipelineConfig) -> list[Episode]:
    """Make anew the prices of the episodes that the summary's returns are means over."""
    names = [row["episode"] for row in _last_whole(result)]
    return source_of(config).episodes([int(name.rpartition("-")[2]) for name in names])


def _last_whole(result: DemoResult) -> list[dict[str, Any]]:
    """Return the points of the episodes that the summary's returns are means over."""
    reader = StoreReader(result.folder / STORE_FILE)
    try:
        rows = reader.newest("episode", result.folder.name, limit=EPISODES_KEPT)
    finally:
        reader.close()
    whole = [row for row in rows if row["no_trade_return"] is not None]
    return whole[: newest_count(len(whole))]


def where_the_policy_stands(title: str, returns: Sequence[float], scales: Sequence[Scale]) -> str:
    """Say what share of the rule's and of the optimum's return a policy earned, over the seeds."""
    policy = float(np.mean(returns))
    rule, best = (float(np.mean([np.mean(getattr(scale, name)) for scale in scales])) for name in ("rule", "optimum"))
    return (
        f"{title}: over the seeds the policy earned {policy:+.1f}, {policy / rule:.0%} of the rule's {rule:+.1f} and {policy / best:.0%} "
        f"of the optimum, {best:+.1f}."
    )


def whether_the_forecast_helps(shown: Sequence[float], hidden: Sequence[float]) -> str:
    """Say what the forecast is worth to the policy, from its returns with it and without it, seed by seed."""
    gains = np.asarray(shown) - np.asarray(hidden)
    mean, error = float(gains.mean()), standard_error(gains)
    said = f"The forecast is worth {pair(mean, error)} to the policy, the mean over the seeds of its return with it minus that without it"
    if mean > _CERTAIN * error:
        return f"{said}: the regressor earns its place here."
    return (
        f"{said}, too little to be told apart from nothing: the regressor does not earn its place here. What it learns from, the distances "
        "from two running means and the last return, the policy sees in its other features."
    )


def _with_error(values: FloatArray) -> str:
    return pair(float(values.mean()), standard_error(values)) if len(values) else "-"
