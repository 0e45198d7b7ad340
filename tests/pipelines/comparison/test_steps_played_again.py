"""What a run did is what is played again for its summary, whatever its settings, and whatever came late: bar by bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from policyserver.pipelines.market.execution.broker import AccountConfig
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.prices.config import make_slots
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


class Equities:
    """Takes the turns of a run, and keeps the equity of each episode at each bar, by its number."""

    def __init__(self) -> None:
        self.of: dict[int, list[float]] = {}
        self._plays: dict[tuple[int, int], int] = {}

    def add(self, turn: Turn) -> None:
        for row, number in zip(*turn.begun, strict=True) if turn.begun else ():
            self._plays[turn.block, int(row)] = int(number)
            self.of[int(number)] = []
        for row, equity in zip(turn.marked[0], turn.marked[2], strict=True) if turn.marked else ():
            self.of[self._plays[turn.block, int(row)]].append(float(equity))


def settings_of(rng: np.random.Generator, folder: Path) -> PipelineConfig:
    """Draw settings of a run."""
    scheme = SCHEMES[rng.integers(len(SCHEMES))]
    of_two = isinstance(scheme, dict)
    skip, warm_up = int(rng.integers(1, 4)), int(rng.integers(20, 30))
    bars = int(rng.integers(25, 60))
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
        episodes=PlayedEpisodesConfig(concurrent=5, steps=600),
        prices=prices,
        rules=rules,
        policy=PolicyCallsConfig(fallback=("hold", "flatten")[rng.integers(2)]),
        stop_timeout_s=10.0,
    )


def troubled(rng: np.random.Generator) -> PolicyDouble:
    """A service that acts at random, answers late at random, loses episodes, and is sometimes away when they begin."""
    service = PolicyDouble()
    starts = 0

    def fails(call: str, ids: Sequence[str]) -> dict[int, PolicyServerError] | None:
        nonlocal starts
        if call == "get" and rng.random() < 0.5:
            late = np.flatnonzero(rng.random(len(ids)) < 0.3).tolist()
            return {row: EpisodeLostError("lost") if rng.random() < 0.02 else ActionTimeoutError("late") for row in late}
        if call == "log" and rng.random() < 0.2:
            return dict.fromkeys(range(len(ids)), ServerUnavailableError("away"))
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


def play_and_repeat(config: PipelineConfig, service: PolicyDouble) -> tuple[Pipeline, list[tuple[Any, Any]]]:
    """Play a run; return it and, of each whole episode, the equity of the run and of the repetition at each bar."""
    equities = Equities()
    with Pipeline(config, service, Book(), turns=equities).running() as pipeline:
        assert pipeline.wait(WAIT_S)
    kept = pipeline.kept_episodes
    episodes = [each.episode for each in kept]
    source = pipeline._source
    again = measured_play(pipeline._rules, source.slots, episodes, repeat(kept), RULE_STATISTICS, source.columns)
    curves = [again.record.equity[place, 1:] for place in range(len(kept))]
    return pipeline, [
        (np.array(equities.of[each.number]), curve[~np.isnan(curve)]) for each, curve in zip(episodes, curves, strict=True)
    ]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(16))
def test_whatever_was_done_is_done_again(seed: int, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserver.pipelines.nodes.policy_node._RETRY_S", 0.0)
    rng = np.random.default_rng(seed)
    config = settings_of(rng, files)
    space = Rules.of(config.rules).actions.space(make_slots(config.prices))
    service = troubled(rng)
    service.choose = lambda observations: random_actions(space, rng, len(observations))
    pipeline, pairs = play_and_repeat(config, service)
    assert len(pairs) > 5
    assert pipeline.fallbacks > 20
    for was, is_now in pairs:
        assert len(was) == len(is_now)
        assert is_now == pytest.approx(was, rel=EXACTLY)
