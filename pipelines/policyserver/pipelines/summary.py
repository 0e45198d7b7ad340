"""The summary of a run: what was done, how fast, what was earned, and whether the ledgers agree."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policyserver.client import ServerStats, TrainingIteration
from policyserver.common.whole_file import writing_whole
from policyserver.monitoring.recorded_prices import note, span_of
from policyserver.monitoring.store.reader import Ledger
from policyserver.pipelines.comparison.comparison import Comparison
from policyserver.pipelines.comparison.kept_episodes import which_text
from policyserver.pipelines.forecast.regressor import skill
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.replay.turn_log import TurnLog
from policyserver.pipelines.runtime.node import NodeStatistics
from policyserver.pipelines.server_watch import ServerWatch

LEDGER_TOLERANCE = 1e-6
"""Largest difference between the sums of rewards, relative to the largest where that is above 1: the server adds up as rewards come."""


_SHOWN_WINDOWS = 4
"""Symbols whose windows are in the text of a summary."""

_UNKNOWN = re.compile(r"[+-]?\bnan\b")
"""A figure that is not known, in the text of one."""


class LedgerError(RuntimeError):
    """Client, server and store do not agree on what was earned, and nothing is known to have been lost."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in figures. Those that are not known are NaN, and null in JSON."""

    seed: int
    process: str
    in_sample: bool
    """Whether the policy learnt from the bars on which its returns were earned: episodes are windows of recorded bars."""
    first_bar: str | None
    """Time of the first recorded bar, UTC; None where prices are simulated."""
    last_bar: str | None
    """Time of the last one."""
    prices_note: str
    """What this means, in words."""
    windows: tuple[str, ...]
    """Windows of each symbol, and how many are left out and why; none where prices are simulated."""
    spans: dict[str, int]
    """Episodes by the part of the split that they were played on; empty without a split."""
    bars_a_year: dict[str, float]
    """By what an episode trades, joined by "+", the bars of a year: what a figure of one bar is annualised with."""
    annualisation: str
    """Where that number is from, in words."""
    steps: int
    seconds: float
    steps_per_s: float
    episodes_finished: int
    episodes_leaked: int | None
    """Episodes the server still held after all had ended; None: it did not answer."""
    episodes_lost: int
    """Episodes that ended with a server that died."""
    episodes_abandoned: int
    """Episodes that ended with a node that failed."""
    action_latency_p50_ms: float
    action_latency_p99_ms: float
    action_latency_max_ms: float
    fallback_actions: int
    """Actions taken without the server."""
    fallback_actions_reported: int
    """Those of them that the server was told of afterwards."""
    server_restarts: int
    """How often the policy server died and was started again."""
    weights_seq_no: int
    learner_updates: int
    steps_trained: int
    steps_dropped: int
    staleness_mean: float
    """Policy versions between acting and training, mean over the steps trained."""
    points_recorded: int
    """Steps in the embedded store."""
    reward_sum_client: float
    reward_sum_server: float
    reward_sum_recorded: float
    whole_episodes: int
    """Episodes that ended with their prices, or by an end of the rules."""
    counted_episodes: int
    """Those of them that the figures down to the random baseline's profit are of: all where nothing is learnt or a test is played, else the
    newest tenth."""
    return_mean: float
    """In units of reward."""
    return_stderr: float
    no_trade_mean: float
    no_trade_stderr: float
    random_mean: float
    random_stderr: float
    profit_mean: float
    """Simple profit, a fraction of the initial equity, like the costs."""
    costs_mean: float
    profit_plus_costs_stderr: float
    random_profit_mean: float
    random_costs_mean: float
    random_profit_plus_costs_stderr: float
    regressor_skill: float
    """1 - MSE / MSE of the zero forecast, over the last tenth of the steps; on recorded bars over all that were played, each once."""
    regressor_skill_stderr: float
    forecasts: int
    """Forecasts compared with what came."""
    counted_forecasts: int
    """The newest of them, which the skill is of."""
    comparison: Comparison | None
    """Measures of whole episodes beside those of other policies; None if there is no episode."""
    nodes: tuple[NodeStatistics, ...]
    events_recorded: int
    """Turns of blocks in the event log: what happened to each from one bar to the next."""
    events_unrecorded: int
    """Turns that are not in it, because it had ended before the run."""

    def to_json(self) -> str:
        """Return the summary as JSON."""
        return json.dumps(without_nan(dataclasses.asdict(self)), indent=2, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write the summary as JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_whole(path) as part:
            part.write_text(self.to_json(), encoding="utf-8")

    def table(self) -> str:
        """Return the summary as text."""
        rows = [
            ("run", f"{self.process}, seed {self.seed}"),
            *([("prices", self.prices_note)] if self.prices_note else []),
            *([("a year", self.annualisation)] if self.windows else []),
            *[("windows", text) for text in self.windows[:_SHOWN_WINDOWS]],
            *([("  and", f"{len(self.windows) - _SHOWN_WINDOWS:,} more symbols")] if len(self.windows) > _SHOWN_WINDOWS else []),
            *([("played", ", ".join(f"{span}: {count:,} episodes" for span, count in self.spans.items()))] if self.spans else []),
            ("steps", f"{self.steps:,} in {self.seconds:,.1f} s: {self.steps_per_s:,.0f}/s"),
            (
                "episodes",
                f"{self.episodes_finished:,} finished, {_known(self.episodes_leaked)} leaked, {self.episodes_lost} lost, "
                f"{self.episodes_abandoned} abandoned",
            ),
            (
                "action latency",
                f"p50 {self.action_latency_p50_ms:.1f} ms, p99 {self.action_latency_p99_ms:.1f} ms, "
                f"max {self.action_latency_max_ms:.1f} ms",
            ),
            ("fallback actions", f"{self.fallback_actions}, {self.fallback_actions_reported} reported"),
            (
                "learner",
                f"{self.learner_updates} updates, weights_seq_no {self.weights_seq_no}, {self.steps_trained:,} steps trained, "
                f"{self.steps_dropped:,} dropped, staleness {self.staleness_mean:.2f}",
            ),
            ("return", f"{self.return_mean:+.3f} ± {self.return_stderr:.3f}   (of {self._which()})"),
            ("  no trade", f"{self.no_trade_mean:+.3f} ± {self.no_trade_stderr:.3f}   (same prices and fees)"),
            ("  random", f"{self.random_mean:+.3f} ± {self.random_stderr:.3f}"),
            (
                "profit + costs",
                f"{self.profit_mean:+.5f} + {self.costs_mean:.5f} = {self.profit_mean + self.costs_mean:+.5f} "
                f"± {self.profit_plus_costs_stderr:.5f} of the initial equity",
            ),
            (
                "regressor skill",
                f"{self.regressor_skill:+.4f} ± {self.regressor_skill_stderr:.4f}   ({self._which_forecasts()})",
            ),
            (
                "reward ledgers",
                f"client {self.reward_sum_client:.6f}, server {self.reward_sum_server:.6f}, recorded {self.reward_sum_recorded:.6f} "
                f"({self.points_recorded:,} steps)",
            ),
            *([("event log", f"{self.events_unrecorded:,} turns came after its end")] if self.events_unrecorded else []),
            *self._what_was_lost(),
            *(self.comparison.rows() if self.comparison else []),
            ("nodes", "threads  processed  queue max  overflowed  failures  restarts"),
        ]
        figures = "{0.threads:>7}  {0.processed:>9,}  {0.queue_max:>9}  {0.overflowed:>10}  {0.failures:>8}  {0.restarts:>8}"
        rows += [(f"  {node.name}", figures.format(node)) for node in self.nodes]
        return "".join(f"{name:<18}{_UNKNOWN.sub('-', text)}\n" for name, text in rows)

    def unexplained_difference(self) -> str:
        """Return how the ledgers differ, if they do although no server died and no episode was lost; else ""."""
        if self.server_restarts or self.episodes_lost:
            return ""
        sums = {"client": self.reward_sum_client, "server": self.reward_sum_server, "recorded": self.reward_sum_recorded}
        largest = LEDGER_TOLERANCE * max(1.0, *map(abs, sums.values()))
        if max(sums.values()) - min(sums.values()) <= largest and self.points_recorded == self.steps:
            return ""
        rewards = ", ".join(f"{name} {value:.6f}" for name, value in sums.items())
        steps = f"{self.steps} steps played, {self.points_recorded} recorded"
        return f"the ledgers differ, although no server died and no episode was lost: rewards {rewards}; {steps}"

    def _which(self) -> str:
        return which_text(self.counted_episodes, self.whole_episodes, are_newest=True)

    def _which_forecasts(self) -> str:
        if self.counted_forecasts == self.forecasts:
            return "every bar played, once" if self.first_bar else "every step"
        return f"the newest {self.counted_forecasts:,} of {self.forecasts:,} {'bars' if self.first_bar else 'steps'}"

    def _what_was_lost(self) -> list[tuple[str, str]]:
        """Return a row that explains why the ledgers differ, if they may."""
        if not (self.server_restarts or self.episodes_lost):
            return []
        died = f"{self.episodes_lost} episodes, with a server that died {self.server_restarts} times"
        return [("lost", f"{died}; the ledgers differ by what it had not passed on")]


def summarise(
    pipeline: Pipeline,
    watch: ServerWatch,
    recorded: Ledger,
    log: TurnLog | None = None,
    *,
    episodes_leaked: int | None,
    server_restarts: int,
) -> Summary:
    """Make the summary of a pipeline that has stopped.

    Args:
        pipeline: Stopped.
        watch: Has asked the server once after the last episode ended.
        recorded: What the embedded store has of this run.
        log: Its event log, closed; None: it had none.
        episodes_leaked: Episodes the server still held then.
        server_restarts: How often it was started again.
    """
    run, latency, stats = pipeline.run, pipeline.latency, watch.latest or ServerStats()
    training = stats.training or TrainingIteration()
    figures = run.figures()
    forecasts = run.newest_forecasts()
    first_bar, last_bar = span_of(run.recorded_prices) if run.recorded_prices else (None, None)
    skill_mean, skill_stderr = skill(forecasts["squared_error"], forecasts["squared_return"])
    return Summary(
        seed=pipeline.config.seed,
        process=pipeline.config.prices.name,
        in_sample=any(prices.trained_on for prices in run.recorded_prices),
        first_bar=first_bar,
        last_bar=last_bar,
        prices_note=note(run.recorded_prices),
        windows=pipeline.price_notes,
        bars_a_year={symbols: year.periods_a_year for symbols, year in pipeline.annualisations.items()},
        annualisation="; ".join(list(dict.fromkeys(year.text for year in pipeline.annualisations.values()))[:_SHOWN_WINDOWS]),
        spans=dict(sorted(run.spans.items())),
        steps=run.steps,
        seconds=pipeline.seconds,
        steps_per_s=run.steps / pipeline.seconds if pipeline.seconds > 0 else math.nan,
        episodes_finished=sum(run.endings.values()),
        episodes_leaked=episodes_leaked,
        episodes_lost=run.endings["lost"],
        episodes_abandoned=run.endings["abandoned"],
        action_latency_p50_ms=1e3 * latency.quantile_s(0.5),
        action_latency_p99_ms=1e3 * latency.quantile_s(0.99),
        action_latency_max_ms=1e3 * latency.max_s,
        fallback_actions=pipeline.fallbacks,
        fallback_actions_reported=pipeline.fallbacks_reported,
        server_restarts=server_restarts,
        weights_seq_no=stats.weights_seq_no,
        learner_updates=training.learner_updates,
        steps_trained=training.steps_total,
        steps_dropped=watch.steps_dropped,
        staleness_mean=math.nan if watch.staleness_mean is None else watch.staleness_mean,
        points_recorded=recorded.steps,
        reward_sum_client=pipeline.reward_sum,
        reward_sum_server=watch.reward_sum,
        reward_sum_recorded=recorded.reward_sum,
        whole_episodes=run.episodes.count,
        counted_episodes=figures.count,
        **{f"{name}_mean": figures.mean(name) for name in figures.names},
        **{f"{name}_stderr": figures.stderr(name) for name in ("return", "no_trade", "random")},
        profit_plus_costs_stderr=figures.stderr("profit", "costs"),
        random_profit_plus_costs_stderr=figures.stderr("random_profit", "random_costs"),
        regressor_skill=skill_mean,
        regressor_skill_stderr=skill_stderr,
        forecasts=run.forecasts.count,
        counted_forecasts=len(forecasts["squared_error"]),
        comparison=pipeline.compare(),
        nodes=tuple(pipeline.statistics()),
        events_recorded=log.recorded if log else 0,
        events_unrecorded=log.unrecorded if log else 0,
    )


def standard_error(values: FloatArray) -> float:
    """Return the standard error of the mean, NaN of fewer than two values."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def without_nan(value: Any) -> Any:
    """Return the value with None in place of NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _known(value: int | None) -> str:
    return "unknown" if value is None else str(value)
