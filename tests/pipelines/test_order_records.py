"""What becomes of orders is recorded beside the steps: refusals and orders that wait always, market orders only if that is asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Discrete

from policyserver.pipelines.config import PipelineConfig, PipelineRecordingConfig, PlayedEpisodesConfig
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.execution.event_log import UntoldEvents
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.orders import OrderKind
from policyserver.pipelines.market.rules import RulesConfig
from policyserver.pipelines.market.schemes.actions.action_scheme import View
from policyserver.pipelines.market.schemes.actions.limit_offsets import LimitOffsets
from policyserver.pipelines.prices import PricesConfig
from tests.pipelines.pipeline_harness import Book, play
from tests.pipelines.policy_double import PolicyDouble


@dataclass(frozen=True, slots=True)
class ThreeOffsets(LimitOffsets):
    """Three of the actions of `limit_offsets`."""

    def space(self, symbols: tuple[str, ...]) -> Any:
        return Discrete(3)

    def orders(self, state: Any, view: View, rows: Any, actions: Any) -> Any:
        return LimitOffsets.orders(self, state, view, rows, np.array([[-1.0, 0.1, 0.2], [0.3, -1.0, 0.1], [0.8, 0.2, -0.5]])[actions])

    def keeping(self, state: Any, view: View, rows: Any) -> Any:
        return np.zeros(len(rows), dtype=np.int64)


def recorded(*, rules: RulesConfig | None = None, all_orders: bool = False, choose: Any = None) -> Book:
    settings = PipelineConfig(
        seed=3,
        episodes=PlayedEpisodesConfig(concurrent=8, steps=400),
        prices=PricesConfig(bars_per_episode=20, warmup_bars=30),
        rules=rules or RulesConfig(),
        recording=replace(PipelineRecordingConfig(), market_order_events=all_orders),
        stop_timeout_s=10.0,
    )
    return play(settings, PolicyDouble(choose))[2]


@pytest.mark.long
def test_a_run_of_market_orders_records_no_event_and_computes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(UntoldEvents, "told")
    book = recorded()
    assert len(book.rows["order"]) > 100
    assert "order_event" not in book.rows


@pytest.mark.long
def test_market_orders_are_recorded_if_that_is_asked_for() -> None:
    book = recorded(rules=RulesConfig(account=AccountConfig(max_leverage=None)), all_orders=True)
    events = book.rows["order_event"]
    assert {row["kind"] for row in events} == {"market"}
    counts = Counter(row["event"] for row in events)
    assert counts["filled"] == len(book.rows["order"])
    assert counts["accepted"] >= counts["filled"]
    accepted = {(row["episode"], row["number"]): row["bar"] for row in events if row["event"] == "accepted"}
    filled = {(row["episode"], row["number"]): row["bar"] for row in events if row["event"] == "filled"}
    assert all(bar == accepted[order] + 1 for order, bar in filled.items()), "given at a bar's close, filled in the next"
    assert {row["left"] for row in events if row["event"] == "filled"} == {0.0}


@pytest.mark.long
def test_every_refusal_is_recorded_with_its_limit() -> None:
    rules = RulesConfig(risk=({"name": "order_rate", "orders": 2, "bars": 20},))
    book = recorded(rules=rules)
    events = book.rows["order_event"]
    assert {(row["event"], row["reason"], row["kind"]) for row in events} <= {("rejected", "OrderRate", "market")}
    names = Counter(row["episode"] for row in book.rows["order"])
    assert max(names.values()) <= 2


@pytest.mark.long
def test_refusals_have_the_bar_at_whose_close_the_action_was_taken() -> None:
    rules = RulesConfig(risk=({"name": "max_position", "units": 0.0},))
    book = recorded(rules=rules, choose=lambda observations: np.full(len(observations), 2))
    assert "order" not in book.rows
    events, steps = book.rows["order_event"], book.rows["step"]
    assert Counter((row["episode"], row["bar"]) for row in events) == Counter((row["episode"], row["bar"]) for row in steps)
    assert {row["reason"] for row in events} == {"MaxPosition"}
    assert {row["symbol"] for row in events} == {"AAA", "BBB", "CCC", "DDD"}
    assert all(row["quantity"] > 0 and row["left"] == row["quantity"] and row["price"] is None for row in events)


@pytest.mark.long
def test_orders_that_wait_are_recorded_from_their_acceptance_to_their_end() -> None:
    own = f"python:{__name__}.ThreeOffsets"
    instrument = InstrumentConfig(volume_fraction=0.01, lot=1.0)
    book = recorded(rules=RulesConfig(actions={"name": own, "good_for": 2}, instrument=instrument))
    events = book.rows["order_event"]
    kinds = {row["kind"] for row in events}
    assert kinds <= {kind.name.lower() for kind in OrderKind}
    assert "limit" in kinds
    assert {"accepted", "cancelled", "filled"} <= {row["event"] for row in events}
    lives: dict[tuple[str, int], list[str]] = {}
    for row in events:
        lives.setdefault((row["episode"], row["number"]), []).append(row["event"])
    assert {(row["kind"], row["reduce_only"]) for row in events} == {("limit", False), ("stop", True)}
    for life in lives.values():
        assert life[0] in ("accepted", "rejected")
        assert all(event == "partly_filled" for event in life[1:-1])
    assert all(row["price"] > 0 for row in events if row["kind"] == "limit")
