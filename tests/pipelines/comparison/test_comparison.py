"""A policy's measures stand beside those of others on the same windows, and the cost at which its edge ends is found by replays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from policyserver.common.errors import ActionTimeoutError
from policyserver.pipelines.comparison.comparison import Comparison, compare, repeat
from policyserver.pipelines.comparison.kept_episodes import NEWEST_EPISODES, EpisodeSample, KeptEpisode
from policyserver.pipelines.comparison.measured_play import measured_play
from policyserver.pipelines.comparison.reference_weights import RULE_STATISTICS, ReferenceWeights, buy_and_hold, no_trade, rule
from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.orders import OrderRequests, Withdrawal
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.schemes.actions.action_scheme import Actions, View
from policyserver.pipelines.market.schemes.actions.sell_hold_buy import SellHoldBuy
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.prices import PricesConfig
from tests.pipelines.pipeline_harness import Book, play
from tests.pipelines.policy_double import PolicyDouble

DISTANCE = Rules.of(RulesConfig()).names(("price",)).index("distance_slow")


def reverting(observations: np.ndarray) -> np.ndarray:
    """Sell high and buy low."""
    distance = observations[:, DISTANCE]
    return np.where(distance > 0.2, 0, np.where(distance < -0.2, 2, 1))


def scores(observations: Any) -> Any:
    """Give scores of cash and three symbols."""
    return np.stack([np.sin(np.arange(4) + 100.0 * row) for row in observations[:, 0]]).astype(np.float32)


def settings(steps: int = 16_000, **prices: object) -> PipelineConfig:
    return PipelineConfig(
        worker_number=0,
        episodes=PlayedEpisodesConfig(concurrent=32, steps=steps),
        prices=PricesConfig(**({"bars_per_episode": 100, "warmup_bars": 40} | prices)),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def played() -> tuple[Pipeline, Book]:
    pipeline, _, book = play(settings(), PolicyDouble(reverting))
    return pipeline, book


def kept(pipeline: Pipeline) -> list[KeptEpisode]:
    return list(pipeline.kept_episodes.episodes)


def compared(rules: Rules, pipeline: Pipeline, episodes: list[KeptEpisode]) -> Comparison | None:
    return compare(rules, pipeline._source, EpisodeSample(episodes, len(episodes)), 0)


@pytest.mark.long
def test_episodes_played_again_earn_what_they_earned(played: tuple[Pipeline, Book]) -> None:
    pipeline, book = played
    earned = {row["episode"]: (row["return"], row["profit"]) for row in book.rows["episode"] if not row["cut"]}
    whole = kept(pipeline)
    assert 128 <= len(whole) <= NEWEST_EPISODES
    assert {each.episode.id for each in whole} == set(earned)
    again = measured_play(pipeline._rules, ("price",), [each.episode for each in whole], repeat(whole))
    for place, each in enumerate(whole):
        assert (again.returns[place], again.profits[place]) == pytest.approx(earned[each.episode.id], abs=1e-9)
    assert np.array_equal(again.record.equity[:, -1] / again.record.equity[:, 0] - 1.0, again.profits)


@pytest.mark.long
def test_the_measures_of_five_policies_and_the_cost_at_which_the_edge_ends(played: tuple[Pipeline, Book]) -> None:
    found = played[0].compare()
    assert found is not None
    assert list(found.measures) == ["policy", "no_trade", "buy_and_hold", "random", "rule"]
    assert found.bars_per_year == pytest.approx(365.25 * 1440, rel=1e-3)
    bands = found.measures
    assert bands["policy"]["total_return"].low < bands["policy"]["total_return"].median < bands["policy"]["total_return"].high
    assert bands["no_trade"]["total_return"].high == bands["no_trade"]["turnover"].high == bands["no_trade"]["exposure"].high == 0.0
    assert bands["buy_and_hold"]["turnover"].median == pytest.approx(1.0, abs=0.1)
    assert bands["buy_and_hold"]["exposure"].median > 0.95
    assert bands["random"]["turnover"].median == pytest.approx(bands["policy"]["turnover"].median, rel=0.15)
    assert bands["policy"]["total_return"].median > bands["random"]["total_return"].median + 0.05
    assert bands["rule"]["total_return"].median > 0.0
    assert 0.995 < bands["policy"]["fill_rate"].median < 1.0, "the costs of an order for the whole equity are not on credit"
    sweep = {point.multiple: point.profit_mean for point in found.fee_sweep}
    assert sweep[1.0] == pytest.approx(np.mean([row["profit"] for row in played[1].rows["episode"] if not row["cut"]]), abs=1e-9)
    assert sweep[0.0] > sweep[1.0] > sweep[4.0] > 0.0 > sweep[16.0]
    assert found.edge_ends_at is not None
    assert 4.0 < found.edge_ends_at < 16.0
    rows = dict(found.rows())
    assert rows["  policy"].startswith("return +")
    assert f"the edge ends at {found.edge_ends_at:.2g} times the costs" in rows["profit by costs"]
    json.dumps([found.fee_sweep[0].profit_mean])


@pytest.mark.long
def test_what_is_bought_and_held_earns_what_the_price_does(played: tuple[Pipeline, Book]) -> None:
    pipeline = played[0]
    free = replace(pipeline._rules, instrument=InstrumentConfig(fee_fraction=0.0, slippage_fraction=0.0), actions=ReferenceWeights())
    episodes = [each.episode for each in kept(pipeline)]
    held = measured_play(free, ("price",), episodes, buy_and_hold)
    for place, episode in enumerate(episodes):
        bars, first = episode.bars.bars, episode.bars.warmup_bars
        assert held.profits[place] == pytest.approx(bars[-1, 0, 3] / bars[first, 0, 0] - 1.0)
    assert not measured_play(free, ("price",), episodes, no_trade).profits.any()


@pytest.mark.long
def test_the_rule_sells_high_and_buys_low(played: tuple[Pipeline, Book]) -> None:
    pipeline = played[0]
    episodes = [each.episode for each in kept(pipeline)]
    ruled = measured_play(replace(pipeline._rules, actions=ReferenceWeights()), ("price",), episodes, rule, RULE_STATISTICS)
    assert ruled.profits.mean() > 4.0 * ruled.profits.std() / len(episodes) ** 0.5


@pytest.mark.long
def test_random_has_no_actions_of_its_own_episode(played: tuple[Pipeline, Book]) -> None:
    """Two episodes: each gets the other's, so that what is random for them is what the policy did, exchanged."""
    pipeline = played[0]
    pair = kept(pipeline)[:2]
    found = compared(pipeline._rules, pipeline, pair)
    exchanged = [KeptEpisode(pair[0].episode, pair[1].actions), KeptEpisode(pair[1].episode, pair[0].actions)]
    other = compared(pipeline._rules, pipeline, exchanged)
    assert found is not None
    assert other is not None
    assert found.measures["random"] == other.measures["policy"]


@pytest.mark.long
def test_actions_that_came_too_late_are_those_that_were_taken() -> None:
    policy = PolicyDouble(reverting)
    policy.fail = lambda call, ids: {0: ActionTimeoutError("late")} if call == "get" and len(policy.calls) % 3 == 0 else None
    pipeline, _, book = play(settings(4_000), policy)
    assert pipeline.fallbacks > 10
    earned = {row["episode"]: row["return"] for row in book.rows["episode"] if not row["cut"]}
    whole = kept(pipeline)
    assert {each.episode.id for each in whole} == set(earned)
    again = measured_play(pipeline._rules, ("price",), [each.episode for each in whole], repeat(whole))
    assert again.returns.tolist() == pytest.approx([earned[each.episode.id] for each in whole], abs=1e-9)


@pytest.mark.long
def test_without_a_whole_episode_or_without_costs_there_is_less_to_say(played: tuple[Pipeline, Book]) -> None:
    pipeline = played[0]
    assert compared(pipeline._rules, pipeline, []) is None
    free = replace(pipeline._rules, instrument=InstrumentConfig(fee_fraction=0.0, slippage_fraction=0.0))
    found = compared(free, pipeline, kept(pipeline)[:4])
    assert found is not None
    assert found.fee_sweep == ()
    assert found.edge_ends_at is None


@pytest.mark.long
def test_portfolios_and_other_actions_are_compared_alike() -> None:
    config = replace(
        settings(1_600, symbols=("AAA", "BBB", "CCC"), symbols_per_episode=3, bars_per_episode=40),
        rules=RulesConfig(actions="simplex_weights"),
    )
    found = play(config, PolicyDouble(scores))[0].compare()
    assert found is not None
    assert found.measures["buy_and_hold"]["exposure"].median == pytest.approx(1.0, abs=0.05)
    assert found.measures["policy"]["turnover"].median > 5.0


@dataclass(frozen=True, slots=True)
class Forecasting(SellHoldBuy):
    """Buys and sells by the forecast, whatever the action says: the forecasts of a repetition are 0."""

    def orders(self, state: Any, view: View, rows: IntArray, actions: Actions) -> Sequence[OrderRequests | Withdrawal]:
        return SellHoldBuy.orders(self, state, view, rows, 1 + np.sign(view.forecast[rows, 0, 0]).astype(np.int64))


@pytest.mark.long
def test_episodes_that_do_not_earn_again_what_they_earned_are_counted_and_told(played: tuple[Pipeline, Book]) -> None:
    found = played[0].compare()
    assert found is not None
    assert found.earned_otherwise == 0
    assert "played again" not in dict(found.rows())
    config = replace(settings(800, bars_per_episode=10), rules=RulesConfig(actions=f"python:{__name__}.Forecasting"))
    found = play(config, PolicyDouble(reverting))[0].compare()
    assert found is not None
    assert found.earned_otherwise == found.episodes > 0
    assert dict(found.rows())["played again"].startswith(f"{found.episodes} of {found.episodes} episodes earned something else")


def test_where_the_policy_is_seldom_asked_bars_bound_what_is_played_again(
    played: tuple[Pipeline, Book], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = played[0]
    seldom = [replace(each, actions=each.actions[:2], profit=None) for each in kept(pipeline)[:40]]
    monkeypatch.setattr("policyserver.pipelines.comparison.kept_episodes.MOST_BARS", 1_000)
    found = compared(pipeline._rules, pipeline, seldom)
    assert found is not None
    assert (found.episodes, found.whole_episodes, found.are_newest) == (10, 40, False)
    assert dict(found.rows())["measures"].startswith("of 10 of 40 whole episodes, spread evenly: median")
