"""The measures of a policy beside those of others on the same windows, and the cost at which its edge ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policyserver.pipelines.comparison.kept_episodes import EpisodeSample, KeptEpisode, which_text
from policyserver.pipelines.comparison.measured_play import ChosenSteps, MeasuredEpisodes, Steps, measured_play
from policyserver.pipelines.comparison.reference_weights import RULE_STATISTICS, ReferenceWeights, buy_and_hold, no_trade, rule
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.step_kinds import StepKind
from policyserver.pipelines.market.truth.measures import Band, band, measure
from policyserver.pipelines.prices import PriceSource

POLICY = "policy"
"""What the run's own policy is called beside the others."""

_ROUNDING = 1e-9
"""Distance of two profits that count as one."""

_COSTS = ("fee_fixed", "fee_per_unit", "fee_fraction", "fee_minimum", "spread_fraction", "slippage_fraction", "borrow_fraction")
_BOUNDS = {"fee_fraction": 1.0, "spread_fraction": 1.0, "slippage_fraction": 0.5, "borrow_fraction": 1.0}
_MULTIPLES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True, slots=True)
class FeePoint:
    """What the recorded actions earn at a multiple of the costs."""

    multiple: float
    """Of every fee, the spread, the slippage and the cost to borrow."""
    profit_mean: float
    """Simple profit of an episode over the initial equity."""
    profit_stderr: float
    """Standard error of that mean."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Measures over whole episodes: the newest while the policy learns, else all of them, or an even part."""

    episodes: int
    """How many there are."""
    whole_episodes: int
    """Of how many."""
    are_newest: bool
    """Whether they are the newest of these."""
    bars_per_year: float
    """By which measures are annualised, the mean of the episodes."""
    measures: dict[str, dict[str, Band]]
    """Of `policy`, `no_trade`, `buy_and_hold`, `random` and `rule` each measure's band; `return` is the sum of rewards."""
    fee_sweep: tuple[FeePoint, ...]
    """What the same steps earn at multiples of the costs."""
    edge_ends_at: float | None
    """Multiple of the costs at which the mean profit is 0; None: there is no profit, there are no costs, or 16 times the costs
    don't end it."""
    earned_otherwise: int
    """Episodes that did not earn what they had earned when their own steps were played again."""

    def text(self, name: str) -> str:
        """Return a policy's measures in short."""
        return _short(self.measures[name])

    def which(self) -> str:
        """Say which of how many episodes it is of."""
        return which_text(self.episodes, self.whole_episodes, are_newest=self.are_newest)

    def rows(self) -> list[tuple[str, str]]:
        """Return it as names and texts, in short."""
        head = ("measures", f"of {self.which()}: median, and the range from 5 to 95 % of them")
        rows = [head, *((f"  {name.replace('_', ' ')}", _short(bands)) for name, bands in self.measures.items())]
        sweep = ", ".join(f"{point.profit_mean:+.2%} at {point.multiple:g}" for point in self.fee_sweep)
        if self.earned_otherwise:
            why = "a part of the rules reads forecasts, which are 0 here, or draws random numbers"
            rows.append(("played again", f"{self.earned_otherwise} of {self.episodes} episodes earned something else: {why}"))
        if sweep:
            end = "" if self.edge_ends_at is None else f"; the edge ends at {self.edge_ends_at:.2g} times the costs"
            rows.append(("profit by costs", f"{sweep} times{end}"))
        return rows


def compare(rules: Rules, source: PriceSource, sample: EpisodeSample, seed: int) -> Comparison | None:
    """Play episodes again, as many as can be, by their actions and by other policies; None without an episode.

    `random` are the actions of other episodes: the policy's own turnover without its knowledge.

    Args:
        rules: Of the run.
        source: Of the episodes.
        sample: The episodes.
        seed: Of `random`.
    """
    sample = sample.spread()
    kept = sample.episodes
    if not kept:
        return None
    episodes = [each.episode for each in kept]
    others = np.random.default_rng((seed, len(kept))).permutation(len(kept))
    shuffled = [kept[other] for other in np.take(others, np.argsort(others) - 1).tolist()]  # of two or more, no episode gets its own
    plays: dict[str, tuple[Rules, ChosenSteps]] = {POLICY: (rules, repeat(kept))}
    reference = replace(rules, actions=ReferenceWeights())
    plays |= {"no_trade": (reference, no_trade), "buy_and_hold": (reference, buy_and_hold)}
    plays |= {"random": (rules, repeat(shuffled)), "rule": (reference, rule)}
    years = source.annualisations
    bars_per_year = float(np.mean([years["+".join(episode.symbols)].periods_a_year for episode in episodes]))

    def played(of: Rules, choose: ChosenSteps) -> MeasuredEpisodes:
        return measured_play(of, source.slots, episodes, choose, RULE_STATISTICS, source.columns)

    measures, profits = {}, {}
    for name, how in plays.items():
        result = played(*how)
        measures[name], profits[name] = _bands(result, bars_per_year), result.profits
    sweep = _fee_sweep(rules.instrument, lambda dearer: played(replace(rules, instrument=dearer), repeat(kept)).profits)
    counted = len(kept), sample.whole, sample.are_newest
    return Comparison(*counted, bars_per_year, measures, sweep, _edge_ends_at(sweep), _earned_otherwise(kept, profits[POLICY]))


def _earned_otherwise(kept: Sequence[KeptEpisode], again: FloatArray) -> int:
    """Return how many of the episodes whose profit is known have another one now, float64 (n,)."""
    pairs = zip(kept, again.tolist(), strict=True)
    return sum(each.profit is not None and not abs(each.profit - profit) <= _ROUNDING for each, profit in pairs)


def repeat(kept: Sequence[KeptEpisode]) -> ChosenSteps:
    """Return what takes the steps of episodes in their order, again and again where they are too few."""
    lengths = np.array([len(each.actions) for each in kept])
    kinds = [each.kinds for each in kept]
    all_act = all(each is None for each in kinds)

    def choose(block: EpisodeBlock, rows: IntArray, steps: IntArray) -> Steps:
        places = list(zip(rows.tolist(), (steps % lengths[rows]).tolist(), strict=True))
        actions = np.stack([kept[row].actions[step] for row, step in places])
        if all_act:
            return actions, None
        given = [StepKind.ACT if (of := kinds[row]) is None else of[step] for row, step in places]
        return actions, np.array(given, dtype=np.int8)

    return choose


def _bands(played: MeasuredEpisodes, bars_per_year: float) -> dict[str, Band]:
    return {"return": band(played.returns)} | {name: band(values) for name, values in measure(played.record, bars_per_year).items()}


def _fee_sweep(instrument: InstrumentConfig, earned: Callable[[InstrumentConfig], FloatArray]) -> tuple[FeePoint, ...]:
    """Return what the actions earn at multiples of the costs, as far as the costs allow."""
    points = []
    if not any(getattr(instrument, name) for name in _COSTS):
        return ()
    for multiple in _MULTIPLES:
        costs = {name: multiple * getattr(instrument, name) for name in _COSTS}
        if all(costs[name] < bound for name, bound in _BOUNDS.items()):
            profits = earned(replace(instrument, **costs))
            stderr = float(profits.std(ddof=1)) / math.sqrt(len(profits)) if len(profits) > 1 else math.nan
            points.append(FeePoint(multiple, float(profits.mean()), stderr))
    return tuple(points)


def _edge_ends_at(sweep: Sequence[FeePoint]) -> float | None:
    """Return the multiple at which the profit is 0, between two of the sweep by a straight line."""
    for before, after in itertools.pairwise(sweep):
        if before.profit_mean > 0 >= after.profit_mean:
            share = before.profit_mean / (before.profit_mean - after.profit_mean)
            return before.multiple + share * (after.multiple - before.multiple)
    return None


def _short(bands: dict[str, Band]) -> str:
    def ranged(name: str, form: str) -> str:
        of = bands[name]
        median, low, high = ("-" if math.isnan(value) else format(value, form) for value in (of.median, of.low, of.high))
        return f"{median} ({low} to {high})"

    return (
        f"return {ranged('total_return', '+.1%')}, Sharpe {ranged('sharpe_ratio', '+.1f')}, drawdown {ranged('max_drawdown', '.1%')}, "
        f"turnover {bands['turnover'].median:.1f}, fees {bands['fees'].median:.2%}"
    )
