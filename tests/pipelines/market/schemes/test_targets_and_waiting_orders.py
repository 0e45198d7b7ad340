"""A target is a target, however long its orders wait for a bar of their symbol or for volume: what waits is never ordered a second time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policyserver.pipelines.comparison.reference_weights import ReferenceWeights, buy_and_hold
from policyserver.pipelines.market.bars import BarRows, IntArray
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.orders import OrderKind, OrderRequests
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.schemes.actions.action_scheme import Actions, ActionScheme, View, Withdrawal, rebalance
from policyserver.pipelines.market.step_kinds import perform
from tests.pipelines.market.price_paths import begun, episode_of
from tests.pipelines.market.risk.traded import FREE, Traded

ONE = np.array([0])
THIN = replace(FREE, volume_fraction=0.1)
"""At a volume of 100 a bar fills 10 units."""


@dataclass(frozen=True, slots=True)
class Units(ActionScheme):
    """A scheme of one's own: the units to be held."""

    def space(self, symbols: tuple[str, ...]) -> gym.Space[Any]:
        return gym.spaces.Box(-100.0, 100.0, (len(symbols),), np.float64)

    def orders(self, state: Any, view: View, rows: IntArray, actions: Actions) -> Sequence[OrderRequests | Withdrawal]:
        return rebalance(view, rows, actions)


Case = tuple[Any, list[float], list[float]]
"""A scheme, and its actions for 30 units of each of two symbols, and for none, at a price of 100 and an equity of 10,000."""

OF_TWO: dict[str, Case] = {
    "target_weight": ("target_weight", [0.6, 0.6], [0.0, 0.0]),
    "simplex_weights": ({"name": "simplex_weights", "sharpness": 1.0}, [float(np.log(0.4 / 0.3)), 0.0, 0.0], [1.0, -1.0, -1.0]),
    "reference": (f"python:{ReferenceWeights.__module__}.ReferenceWeights", [0.3, 0.3], [0.0, 0.0]),
    "own": (f"python:{__name__}.Units", [30.0, 30.0], [0.0, 0.0]),
}
OF_ONE: dict[str, tuple[Any, Any, Any, Any]] = {
    "target_weight": ("target_weight", [0.5], [-0.5], [0.0]),
    "sell_hold_buy": ({"name": "sell_hold_buy", "unit_fraction": 0.5}, 2, 0, None),
    "target_position": ({"name": "target_position", "unit_fraction": 0.5, "steps": 1}, 2, 0, 1),
    "reference": (OF_TWO["reference"][0], [0.5], [-0.5], [0.0]),
    "own": (OF_TWO["own"][0], [50.0], [-50.0], [0.0]),
}
"""A scheme, and its actions for 50 units, for -50 units, and for none, if it has one."""


def act(traded: Traded, action: Any) -> None:
    traded.block.act(ONE, np.asarray(action)[None])


@pytest.mark.parametrize("name", OF_TWO)
def test_a_symbol_without_a_bar_is_bought_once(name: str) -> None:
    actions, wanted, _ = OF_TWO[name]
    traded = Traded(actions=actions, symbols=2)
    for bar in range(9):
        act(traded, wanted)
        traded.bar(100.0, present=[True, bar % 4 == 3])
    assert traded.positions == pytest.approx([30.0, 30.0])
    assert traded.block.view.accounts.orders[0] == 2


@pytest.mark.parametrize("name", [name for name in OF_TWO if name != "simplex_weights"])
def test_what_is_no_longer_wanted_of_a_symbol_is_not_bought(name: str) -> None:
    actions, wanted, none = OF_TWO[name]
    traded = Traded(actions=actions, symbols=2)
    act(traded, wanted)
    traded.bar(100.0, present=[True, False])
    act(traded, none)
    traded.bar(100.0)
    assert traded.positions.tolist() == [0.0, 0.0]
    assert traded.block.view.accounts.turnover[0] == pytest.approx(6_000.0)


@pytest.mark.parametrize("name", OF_ONE)
def test_a_target_beyond_the_volume_of_a_bar_is_reached_and_held(name: str) -> None:
    actions, long, short, _ = OF_ONE[name]
    traded = Traded(actions=actions, instrument=THIN)
    held = []
    for action in [long] * 8 + [short] * 14:
        act(traded, action)
        traded.bar(100.0, volume=100.0)
        held.append(traded.position)
    expected = [10.0, 20.0, 30.0, 40.0, 50.0, 50.0, 50.0, 50.0, *range(40, -51, -10), *[-50.0] * 4]
    assert held == pytest.approx(expected)
    assert traded.block.view.accounts.orders[0] == 2


@pytest.mark.parametrize("name", OF_ONE)
def test_a_target_that_changes_on_the_way_leaves_nothing_of_the_one_before(name: str) -> None:
    actions, long, short, _ = OF_ONE[name]
    traded = Traded(actions=actions, instrument=THIN)
    for action in [long] * 2 + [short] * 12:
        act(traded, action)
        traded.bar(100.0, volume=100.0)
    assert traded.position == pytest.approx(-50.0)
    assert traded.block.view.accounts.turnover[0] == pytest.approx(9_000.0)


@pytest.mark.parametrize("name", OF_ONE)
def test_an_order_that_waits_does_not_hold_back_the_one_that_takes_its_place(name: str) -> None:
    """Neither as one of the most live orders, nor as a part of what the leverage has to carry."""
    actions, long, short, _ = OF_ONE[name]
    traded = Traded(actions=actions, instrument=THIN, account=AccountConfig(max_live_orders=1))
    for action in (long, short):
        act(traded, action)
        traded.bar(100.0, volume=0.0)
    assert traded.told() == [("cancelled", "trader")]
    assert traded.block.view.refusals[0, 0] == 0
    traded.bar(100.0)
    assert traded.position == pytest.approx(-50.0)


def test_a_close_takes_the_place_of_what_waits_and_is_ordered_once() -> None:
    traded = Traded(actions={"name": "hold_buy_sell_close", "unit_fraction": 0.3}, symbols=2)
    for moves, present in (([1, 1], [True, True]), ([1, 1], [True, False]), ([3, 3], [True, False]), ([3, 3], [True, False])):
        act(traded, moves)
        traded.bar(100.0, present=present)
    assert traded.positions == pytest.approx([0.0, 30.0])
    act(traded, [0, 0])
    traded.bar(100.0)
    assert traded.positions.tolist() == [0.0, 0.0]
    assert traded.block.view.accounts.turnover[0] == pytest.approx(3_000.0 * 6)


def test_units_that_are_bought_one_by_one_add_up_while_they_wait() -> None:
    traded = Traded(actions={"name": "hold_buy_sell_close", "unit_fraction": 0.1}, symbols=2)
    for _ in range(3):
        act(traded, [1, 1])
        traded.bar(100.0, present=[True, False])
    traded.bar(100.0)
    assert traded.positions == pytest.approx([30.0, 30.0])


def test_holding_on_leaves_what_waits_of_the_purchase() -> None:
    block = reference_block()
    bar = BarRows(np.array([1]), np.array([[[100.0, 100.0, 100.0, 100.0, 1.0]] * 2]))
    for step, present in enumerate(([True, False], [True, False], [True, True])):
        perform(block, ONE, *buy_and_hold(block, ONE, np.full(len(ONE), step)))
        block.fill(ONE, bar, np.array([present]))
        block.mark(ONE)
    assert block.view.accounts.position[0] == pytest.approx([50.0, 50.0])


def reference_block() -> EpisodeBlock:
    rules = RulesConfig(actions=OF_TWO["reference"][0], instrument=FREE, observers=("position",), ends=())
    return begun([episode_of(np.full((50, 2), 100.0), warmup_bars=2)], Rules.of(rules))[0]


@pytest.mark.parametrize("order", ["on_open", "on_close"])
def test_an_order_for_a_bar_that_does_not_come_waits_for_it_once(order: str) -> None:
    traded = Traded(actions={"name": "target_weight", "order": order}, symbols=2)
    for present in ([True, False], [True, False], [True, True]):
        act(traded, [0.6, 0.6])
        traded.bar(100.0, present=present)
    assert traded.positions == pytest.approx([30.0, 30.0])


def test_a_stop_that_was_reached_waits_like_a_market_order() -> None:
    traded = Traded(actions=f"python:{__name__}.Units", instrument=THIN)
    traded.order(50.0)
    traded.bar(100.0)
    traded.order(-50.0, kind=OrderKind.STOP, price=99.0, reduce_only=True)
    traded.bar(98.0, volume=100.0)
    assert traded.position == 40.0
    act(traded, [0.0])
    for _ in range(6):
        traded.bar(98.0, volume=100.0)
    assert traded.position == 0.0
    assert traded.block.view.accounts.orders[0] == 2


def test_a_limit_that_waits_is_left_alone() -> None:
    traded = Traded(actions=f"python:{__name__}.Units")
    traded.order(5.0, kind=OrderKind.LIMIT, price=90.0)
    act(traded, [10.0])
    traded.bar(100.0)
    act(traded, [0.0])
    traded.bar(89.0, opens=100.0)
    assert traded.position == 5.0


@pytest.mark.long
@pytest.mark.parametrize("actions", ["target_weight", "sell_hold_buy", "target_position", "hold_buy_sell_close"])
def test_what_a_row_waits_for_changes_no_bit_of_another(actions: str) -> None:
    """Each row is played alone, too: rows that trade without bounds, beside rows that wait for volume."""
    n_rows, n_bars = 6, 40
    rng = np.random.default_rng(5)
    closes = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.02, (n_rows, n_bars, 1)), axis=1))
    volumes = np.where(np.arange(n_rows) % 2, 100.0, 1e9)
    rules = Rules.of(RulesConfig(actions=actions, instrument=InstrumentConfig(volume_fraction=0.1), observers=("position",), ends=()))
    space = rules.actions.space(("AAA",))
    space.seed(1)
    chosen = np.array([[space.sample() for _ in range(n_rows)] for _ in range(n_bars)])

    def played(rows: np.ndarray) -> np.ndarray:
        block = begun([episode_of(closes[row], warmup_bars=2) for row in rows], rules)[0]
        each, equity = np.arange(len(rows)), []
        for bar in range(2, n_bars):
            block.act(each, chosen[bar][rows])
            before, after = closes[rows, bar - 1], closes[rows, bar]
            high, low = np.maximum(before, after), np.minimum(before, after)
            block.fill(each, BarRows.of(np.full(len(rows), bar), before, high, low, after, volumes[rows, None]))
            block.mark(each)
            equity.append(block.view.accounts.equity.copy())
        return np.array(equity)

    together = played(np.arange(n_rows))
    for row in range(n_rows):
        assert together[:, row].tobytes() == played(np.array([row]))[:, 0].tobytes()
