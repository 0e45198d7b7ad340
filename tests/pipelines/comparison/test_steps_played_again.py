"""What a run did is what is played again, for its summary and by a replay, whatever its settings, and whatever came late: bar by bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.common.errors import ActionTimeoutError, EpisodeLostError, PolicyServerError, ServerUnavailableError
from policyserver.pipelines.baselines import random_actions
from policyserver.pipelines.comparison.comparison import repeat
from policyserver.pipelines.comparison.measured_play import measured_play
from policyserver.pipelines.comparison.reference_weights import RULE_STATISTICS
from policyserver.pipelines.config import PipelineConfig, PlayedEpisodesConfig, PolicyCallsConfig
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.schemes.actions.action_scheme import Actions, View
from policyserver.pipelines.market.schemes.actions.target_weights import TargetWeight
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.prices.config import make_slots
from policyserver.pipelines.replay.columns import ActionType
from policyserver.pipelines.replay.replayer import RecordedPolicy, Replayer
from policyserver.pipelines.replay.turn import Turn
from tests.pipelines.pipeline_harness import WAIT_S, Book
from tests.pipelines.policy_double import PolicyDouble
from tests.pipelines.recorded_market import minutes, recorded, write_symbol

EXACTLY = 1e-12

PORTFOLIO = PricesConfig(symbols=("AAA", "BBB"), symbols_per_episode=2, bars_per_episode=30, warmup_bars=20)
SCHEMES: tuple[Any, ...] = (
    "sell_hold_buy",
    "hold_buy_sell_close",
    "target_position",
    {"name": "target_weight", "tolerance": 0.0},
    {"name": "simplex_weights", "sharpness": 1.0},
    "limit_offsets",
)


class KeptTurns:
    """Takes the turns of a run, and keeps the equity of each episode at each bar, by its number."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.equity: dict[int, list[float]] = {}
        self._plays: dict[tuple[int, int], int] = {}

    def add(self, turn: Turn) -> None:
        self.turns.append(turn)
        for row, number in zip(*turn.begun, strict=True) if turn.begun else ():
            self._plays[turn.block, int(row)] = int(number)
            self.equity[int(number)] = []
        for row, equity in zip(turn.marked[0], turn.marked[2], strict=True) if turn.marked else ():
            self.equity[self._plays[turn.block, int(row)]].append(float(equity))


def settings_of(rng: np.random.Generator, folder: Path) -> PipelineConfig:
    """Draw settings of a run."""
    scheme = SCHEMES[rng.integers(len(SCHEMES))]
    of_two = isinstance(scheme, dict)
    skip, warm_up = int(rng.integers(1, 4)), int(rng.integers(20, 30))
    bars = int(rng.integers(15, 40))
    if rng.random() < 0.6:
        decide = ("each_bar", "all_symbols", "30min", "1h")[rng.integers(4)]
        count = 2 if of_two else 1
        prices = PricesConfig(
            recorded=recorded(folder),
            symbols_per_episode=count,
            bars_per_episode=bars,
            warmup_bars=warm_up,
            decide=decide,
            decide_deadline="40min" if decide == "all_symbols" and rng.random() < 0.5 else "",
            skip_frame=skip,
        )
    else:
        prices = replace(PORTFOLIO, symbols_per_episode=2 if of_two else 1, bars_per_episode=bars, warmup_bars=warm_up, skip_frame=skip)
    leverage = (None, 1.0, 3.0)[rng.integers(3)]
    account = AccountConfig(max_leverage=leverage, maintenance_fraction=0.3 if leverage and rng.random() < 0.5 else 0.0)
    instrument = InstrumentConfig(
        fee_fraction=0.001, spread_fraction=0.001, volume_fraction=1.0 if rng.random() < 0.3 else None, borrow_fraction=0.01
    )
    rules = RulesConfig(
        actions=scheme,
        observers=("returns", "position", "refusals"),
        ends=("ruin", {"name": "drawdown_call", "fraction": 0.03}) if rng.random() < 0.4 else (),
        risk=({"name": "order_rate", "orders": 3, "bars": 10},) if rng.random() < 0.3 else (),
        account=account,
        instrument=instrument,
    )
    return PipelineConfig(
        seed=int(rng.integers(1000)),
        worker_number=0,
        episodes=PlayedEpisodesConfig(concurrent=5, steps=300),
        prices=prices,
        rules=rules,
        policy=PolicyCallsConfig(fallback=("hold", "flatten")[rng.integers(2)]),
        stop_timeout_s=10.0,
    )


def troubled(rng: np.random.Generator) -> PolicyDouble:
    """A service that acts at random, answers late at random, loses episodes, and is sometimes away when they begin.

    Two threads tell it what was done, in an order that the machine decides: whether it hears of it is drawn by episode and attempt.
    """
    service = PolicyDouble()
    starts, seed = 0, int(rng.integers(1 << 32))
    attempts: Counter[str] = Counter()

    def fails(call: str, ids: Sequence[str]) -> dict[int, PolicyServerError] | None:
        nonlocal starts
        if call == "get" and rng.random() < 0.5:
            late = np.flatnonzero(rng.random(len(ids)) < 0.3).tolist()
            return {row: EpisodeLostError("lost") if rng.random() < 0.02 else ActionTimeoutError("late") for row in late}
        if call == "log":
            attempts[ids[0]] += 1
            of_attempt = np.random.default_rng((seed, int(ids[0].rpartition("-")[2]), attempts[ids[0]]))
            return dict.fromkeys(range(len(ids)), ServerUnavailableError("away")) if of_attempt.random() < 0.2 else None
        if call == "start":
            starts += 1
            if starts % 5 == 2:
                raise ServerUnavailableError("away")
        return None

    service.fail = fails
    return service


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_symbol(folder / "AAA.csv", minutes(4), seed=1)
    write_symbol(folder / "BBB.csv", np.delete(minutes(4), np.arange(3, 500, 4)), seed=2)
    return folder


def play_kept(config: PipelineConfig, service: PolicyDouble) -> tuple[Pipeline, KeptTurns]:
    """Play a run; return it and its turns."""
    kept = KeptTurns()
    with Pipeline(config, service, Book(), turns=kept).running() as pipeline:
        assert pipeline.wait(WAIT_S)
    return pipeline, kept


def troubled_run(config: PipelineConfig, rng: np.random.Generator) -> tuple[Pipeline, KeptTurns]:
    """Play a run against a service that is late at random."""
    space = Rules.of(config.rules).actions.space(make_slots(config.prices))
    service = troubled(rng)
    service.choose = lambda observations: random_actions(space, rng, len(observations))
    pipeline, kept = play_kept(config, service)
    assert len(pipeline.kept_episodes.episodes) > 3
    assert pipeline.fallbacks > 20
    return pipeline, kept


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let episodes that wait for a server ask again at once."""
    monkeypatch.setattr("policyserver.pipelines.nodes.policy_node._RETRY_S", 0.0)


@pytest.mark.long
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("seed", range(8))
def test_whatever_was_done_is_done_again(seed: int, files: Path) -> None:
    rng = np.random.default_rng(seed)
    config = settings_of(rng, files)
    pipeline, kept = troubled_run(config, rng)
    assert_repeated(pipeline, kept)
    assert_replayed(pipeline, kept)


def assert_repeated(pipeline: Pipeline, kept: KeptTurns) -> None:
    """Play the whole episodes again as the summary does; their equity is what it was."""
    whole, source = pipeline.kept_episodes.episodes, pipeline._source
    again = measured_play(pipeline._rules, source.slots, [each.episode for each in whole], repeat(whole), RULE_STATISTICS, source.columns)
    for each, curve in zip(whole, again.record.equity[:, 1:], strict=True):
        assert curve[~np.isnan(curve)] == pytest.approx(kept.equity[each.episode.number], rel=EXACTLY)


def assert_replayed(pipeline: Pipeline, kept: KeptTurns) -> None:
    """Replay the turns; they are the same bit by bit."""
    space = pipeline._rules.actions.space(pipeline._source.slots)
    policy = RecordedPolicy(action := ActionType(str(space.dtype), space.shape or ()))
    replayer = Replayer(pipeline.config, pipeline._source, policy, action, exact=True)
    for turn in kept.turns:
        replayer.replay(turn)
    assert replayer.steps == sum(len(turn.marked[0]) for turn in kept.turns if turn.marked)


@pytest.mark.long
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("decide", "fallback"), [("1h", "flatten"), ("all_symbols", "hold")])
def test_the_summary_says_what_the_episodes_earned(decide: str, fallback: Any, files: Path) -> None:
    prices = PricesConfig(recorded=recorded(files), symbols_per_episode=2, bars_per_episode=30, warmup_bars=20, decide=decide)
    config = PipelineConfig(
        worker_number=0,
        episodes=PlayedEpisodesConfig(concurrent=4, steps=400),
        prices=prices,
        rules=RulesConfig(actions="target_weight", observers=("returns",), ends=()),
        policy=PolicyCallsConfig(fallback=fallback),
    )
    pipeline, kept = troubled_run(config, np.random.default_rng(1))
    found = pipeline.compare()
    assert found is not None
    earned = [kept.equity[each.episode.number][-1] / 10_000.0 - 1.0 for each in pipeline.kept_episodes.episodes]
    assert (found.episodes, found.earned_otherwise) == (len(earned), 0)
    sweep = {point.multiple: point.profit_mean for point in found.fee_sweep}
    assert sweep[1.0] == pytest.approx(np.mean(earned), abs=EXACTLY)
    assert found.measures["policy"]["total_return"].median == pytest.approx(np.median(earned), abs=EXACTLY)


class LateBetween(PolicyDouble):
    """Acts at random by episode and bar; of so many bars in a row it answers in time at the first."""

    def __init__(self, space: Any, bars_per_step: int, in_time: int) -> None:
        super().__init__(self._chosen)
        self._ids: Sequence[str] = ()
        self.fail = self._late
        self._space, self._bars_per_step, self._in_time = space, bars_per_step, in_time

    def _late(self, call: str, ids: Sequence[str]) -> dict[int, PolicyServerError] | None:
        if call != "get":
            return None
        self._ids = ids
        return {row: ActionTimeoutError("late") for row, name in enumerate(ids) if len(self.episodes[name].actions) % self._in_time}

    def _chosen(self, observations: Any) -> Any:
        return np.stack([self._action(name) for name in self._ids])

    def _action(self, name: str) -> Any:
        bar = len(self.episodes[name].actions) * self._bars_per_step
        return random_actions(self._space, np.random.default_rng((int(name.rpartition("-")[2]), bar)), 1)[0]


@pytest.mark.long
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_held_step_is_a_bar_at_which_the_policy_is_not_asked(scheme: Any) -> None:
    """Of three answers two are late, or the policy is asked at each third bar: what is ordered, cancelled and filled is the same."""
    prices = replace(PORTFOLIO, symbols_per_episode=2 if isinstance(scheme, dict) else 1, skip_frame=3)
    rules = RulesConfig(actions=scheme, observers=("returns",), instrument=InstrumentConfig(volume_fraction=1.0))
    config = PipelineConfig(worker_number=0, episodes=PlayedEpisodesConfig(concurrent=4, steps=100), prices=prices, rules=rules)
    space = Rules.of(rules).actions.space(make_slots(prices))
    skipped = play_kept(config, LateBetween(space, 3, 1))[1]
    each_bar = replace(config, prices=replace(prices, skip_frame=1), episodes=replace(config.episodes, steps=300))
    pipeline, held = play_kept(each_bar, LateBetween(space, 1, 3))
    assert pipeline.fallbacks > 150
    assert sum(map(len, held.equity.values())) > 250
    for number in held.equity.keys() & skipped.equity.keys():
        bars = min(len(held.equity[number]), len(skipped.equity[number]))
        assert held.equity[number][:bars] == skipped.equity[number][:bars]


@dataclass(frozen=True, slots=True)
class WholeNumbers(TargetWeight):
    """Says with integers that nothing changes, in a space of floats."""

    def keeping(self, state: Any, view: View, rows: IntArray) -> Actions:
        return np.zeros((len(rows), 1), dtype=np.int64)


@pytest.mark.long
def test_answers_that_came_in_time_are_played_as_they_are_beside_late_ones() -> None:
    prices = replace(PORTFOLIO, symbols_per_episode=1)
    rules = RulesConfig(actions=f"python:{__name__}.WholeNumbers", observers=("returns",))
    config = PipelineConfig(worker_number=0, episodes=PlayedEpisodesConfig(concurrent=4, steps=300), prices=prices, rules=rules)
    service = troubled(rng := np.random.default_rng(0))
    service.choose = lambda observations: rng.uniform(-0.9, 0.9, (len(observations), 1)).astype(np.float32)
    pipeline, _ = play_kept(config, service)
    assert pipeline.fallbacks > 20
    for each in pipeline.kept_episodes.episodes:
        assert each.actions.tolist() == service.episodes[each.episode.id].actions
