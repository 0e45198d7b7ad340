"""The core keeps the same books as the oracle, a plain engine of one account at a time: over random orders on random bars."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import BarRows
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.execution.next_open import NextOpen
from policyserver.pipelines.market.instruments import InstrumentConfig, Instruments
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED, OrderKind, OrderRequests, Reason, State
from policyserver.pipelines.market.rows import ALL
from tests.pipelines.market.oracle import orders as oracle_orders
from tests.pipelines.market.oracle.account import Account
from tests.pipelines.market.oracle.terms import Bar, Instrument, Rules

KINDS = {kind: oracle_orders.Kind[kind.name] for kind in OrderKind}
ROWS = 64


@dataclass
class Market:
    """Rules and instruments, said to both."""

    account: AccountConfig
    instruments: list[InstrumentConfig]

    def oracles(self, prices: np.ndarray) -> list[Account]:
        leverage = math.inf if self.account.max_leverage is None else self.account.max_leverage
        rules = Rules(self.account.initial_equity, leverage, self.account.maintenance_fraction, self.account.max_live_orders)
        names = [field for field in Instrument.__slots__ if field != "volume_fraction"]
        instruments = [
            Instrument(
                **{name: getattr(config, name) for name in names},
                volume_fraction=math.inf if config.volume_fraction is None else config.volume_fraction,
            )
            for config in self.instruments
        ]
        return [Account(rules, instruments, row.tolist()) for row in prices]


def random_market(rng: np.random.Generator) -> Market:
    def some(*values: float) -> float:
        return float(rng.choice(values))

    leverage = rng.choice(np.array([None, 1.0, 2.0, 5.0]))
    maintenance = 0.0 if leverage is None else some(0.0, 0.5) / leverage
    k = int(rng.integers(1, 4))
    instruments = [
        InstrumentConfig(
            tick=some(0.0, 0.01),
            lot=some(0.0, 1.0, 0.1),
            fee_fixed=some(0.0, 1.0),
            fee_per_unit=some(0.0, 0.01),
            fee_fraction=some(0.0, 0.001),
            fee_minimum=some(0.0, 2.0),
            spread_fraction=some(0.0, 0.001),
            slippage_fraction=some(0.0, 0.0005),
            volume_fraction=rng.choice(np.array([None, 0.1, 0.5])),
            borrow_fraction=some(0.0, 0.001),
            short_allowed=bool(rng.random() < 0.7),
        )
        for _ in range(k)
    ]
    return Market(
        AccountConfig(max_leverage=leverage, maintenance_fraction=maintenance, max_live_orders=int(rng.integers(k, k + 5))), instruments
    )


def usual_market(rng: np.random.Generator) -> Market:
    """One symbol without grids, volume and fees of an order, as most environments have it: its market orders wait apart, in `NextOpen`."""
    leverage = rng.choice(np.array([None, 1.0, 2.0, 5.0]))
    costs = {"fee_fraction": 0.001, "spread_fraction": 0.001, "slippage_fraction": 0.0005, "borrow_fraction": 0.001}
    terms: dict[str, Any] = {name: float(rng.choice([0.0, most])) for name, most in costs.items()}
    instrument = InstrumentConfig(**terms)
    maintenance = 0.0 if leverage is None else float(rng.choice([0.0, 0.5])) / leverage
    return Market(AccountConfig(max_leverage=leverage, maintenance_fraction=maintenance), [instrument])


def random_bar(rng: np.random.Generator, close: np.ndarray, ticks: np.ndarray) -> BarRows:
    """The next bars: gaps, jumps and bars without a range or a volume among them; on the tick, where there is one."""
    open_ = close * np.exp(rng.normal(0, 0.01, close.shape) * (rng.random(close.shape) < 0.5))
    new = open_ * np.exp(rng.normal(0, 0.03, close.shape) * (rng.random(close.shape) < 0.9))
    high = np.maximum(open_, new) * np.exp(np.abs(rng.normal(0, 0.01, close.shape)) * (rng.random(close.shape) < 0.8))
    low = np.minimum(open_, new) * np.exp(-np.abs(rng.normal(0, 0.01, close.shape)) * (rng.random(close.shape) < 0.8))
    volume = rng.exponential(200, close.shape) * (rng.random(close.shape) < 0.9)
    on_tick = ticks > 0
    open_, high, low, new = (np.where(on_tick, np.maximum(np.round(x, 2), 0.01), x) for x in (open_, high, low, new))
    return BarRows.of(np.zeros(len(close), dtype=np.int64), open_, high, low, new, volume)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8, 14, 2))
def test_the_core_keeps_the_oracles_books_where_bars_cover_several_of_others(seed: int) -> None:
    play(seed, steps=25, longest=4)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_the_core_keeps_the_oracles_books(seed: int) -> None:
    play(seed, steps=25)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4, 8))
def test_the_core_keeps_the_oracles_books_of_market_orders_that_wait_apart(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fill, fills = NextOpen.fill, 0

    def counted(waiting: NextOpen) -> None:
        nonlocal fills
        fills += 1
        fill(waiting)

    monkeypatch.setattr(NextOpen, "fill", counted)
    play(seed, steps=25, usual=True)
    assert fills > 10


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first_seed", range(100, 164, 16))
def test_the_core_keeps_the_oracles_books_over_a_million_steps(first_seed: int) -> None:
    """A quarter of them; the four share the processors. A quarter of the seeds have the usual market."""
    seeds = range(first_seed, first_seed + 16)
    assert sum(play(seed, steps=250, usual=seed % 4 == 0, longest=1 + 3 * (seed % 4 == 2)) for seed in seeds) >= 250_000


def play(seed: int, steps: int, *, usual: bool = False, longest: int = 1) -> int:
    """Play random orders on both; return the number of row steps. In the `usual` market, and for odd seeds, each symbol has each bar.

    A bar covers up to `longest` steps, and so many less one may lie in one that isn't over.
    """
    rng = np.random.default_rng(seed)
    market = usual_market(rng) if usual else random_market(rng)
    k = len(market.instruments)
    prices = np.exp(rng.uniform(2, 5, (ROWS, k))).round(2)
    ticks = np.array([config.tick for config in market.instruments])
    accounts = Accounts(ROWS, k)
    accounts.begin(ALL, market.account.initial_equity, prices)
    broker = SimulatedBroker(accounts, Instruments(ROWS, market.instruments), market.account)
    oracles = market.oracles(prices)
    for step in range(steps):
        present = rng.random((ROWS, k)) < (1.0 if usual or seed % 2 else 0.9)
        present[~present.any(axis=1), 0] = True
        bar = random_bar(rng, accounts.price, ticks)
        covers = rng.integers(1, longest + 1, (ROWS, k)) - ~present if longest > 1 else np.ones((ROWS, k), dtype=np.int64)
        bar = replace(bar, covers=covers if longest > 1 else None)
        broker.fill(ALL, bar, None if usual or seed % 2 else present)
        accounts.value(ALL)
        accounts.settle(ALL)
        broker.call_margins(ALL)
        fills = broker.take_fills()
        for row, oracle in enumerate(oracles):
            prices_of = bar.columns[row].tolist()
            columns = [replace(Bar(*prices_of[i]), steps=int(covers[row, i])) if present[row, i] else None for i in range(k)]
            turn = oracle.step(columns, covers[row].tolist() if longest > 1 else None)
            mine = np.flatnonzero(fills.rows == row)  # not pytest.approx below: it would take a third of the time
            assert fills.number[mine].tolist() == [fill.order for fill in turn.fills]
            for place, fill in zip(mine, turn.fills, strict=True):
                assert math.isclose(fills.quantity[place], fill.side * fill.quantity, rel_tol=1e-9, abs_tol=1e-12)
                assert math.isclose(fills.price[place], fill.price, rel_tol=1e-12)
                assert math.isclose(fills.fee[place], fill.fee, rel_tol=1e-9, abs_tol=1e-9)
        compare(accounts, oracles)
        trade(rng, broker, accounts, oracles, market, only_market_orders=usual and step < steps * 4 // 5)
        states(broker, oracles)
    return ROWS * steps


def compare(accounts: Accounts, oracles: list[Account]) -> None:
    for name, theirs in {
        "cash": "cash",
        "equity": "equity",
        "fees": "fees",
        "slippage": "slippage",
        "borrow_costs": "borrow",
        "turnover": "turnover",
        "realised": "realised",
    }.items():
        expected = np.array([getattr(oracle, theirs) for oracle in oracles])
        np.testing.assert_allclose(getattr(accounts, name), expected, rtol=1e-9, atol=1e-9 * 10_000, err_msg=name)
    np.testing.assert_allclose(accounts.position, np.array([oracle.position for oracle in oracles]), rtol=1e-9, atol=1e-12)
    held = np.abs(accounts.position) > 1e-9  # what rounding leaves of a position that was closed is there on one side alone
    averages = np.array([oracle.average for oracle in oracles])
    np.testing.assert_allclose(np.where(held, accounts.average_price, 0.0), np.where(held, averages, 0.0), rtol=1e-9)
    assert accounts.fills.tolist() == [oracle.n_fills for oracle in oracles]
    assert accounts.called.tolist() == [oracle.call for oracle in oracles]


def trade(
    rng: np.random.Generator,
    broker: SimulatedBroker,
    accounts: Accounts,
    oracles: list[Account],
    market: Market,
    *,
    only_market_orders: bool,
) -> None:
    """Let some rows submit, cancel and replace orders, on both sides; or give market orders, one each at most."""
    k = len(market.instruments)
    if only_market_orders:
        bound = min(market.account.max_leverage or 2.0, 2.0) * np.maximum(accounts.equity, 0.0) / accounts.price[:, 0]
        wanted = np.where(rng.random(ROWS) < 0.2, 0.0, rng.uniform(-0.97, 0.97, ROWS) * bound)  # a gap may still cut it
        rows = np.flatnonzero((rng.random(ROWS) < 0.6) & (wanted != accounts.position[:, 0]) & ~accounts.called)
        requests = random_requests(rng, rows, accounts, k, may_reduce=False)
        requests.kind[:] = OrderKind.MARKET
        requests.quantity[:] = (wanted - accounts.position[:, 0])[rows]
        submit(requests, broker, oracles)
        return
    for _ in range(int(rng.integers(1, 4))):
        rows = np.flatnonzero(rng.random(ROWS) < 0.4)
        requests = random_requests(rng, rows, accounts, k)
        submit(requests, broker, oracles)
    rows = np.flatnonzero([len(oracle.orders) > 0 and rng.random() < 0.2 for oracle in oracles])
    numbers = np.array([rng.integers(max(0, len(oracles[row].orders) - 6), len(oracles[row].orders)) for row in rows], dtype=np.int64)
    ended = broker.cancel(rows, numbers)
    assert ended.tolist() == [oracles[row].cancel(number) for row, number in zip(rows.tolist(), numbers.tolist(), strict=True)]
    rows = np.flatnonzero([len(oracle.orders) > 0 and rng.random() < 0.2 for oracle in oracles])
    numbers = np.array([rng.integers(max(0, len(oracles[row].orders) - 6), len(oracles[row].orders)) for row in rows], dtype=np.int64)
    requests = random_requests(rng, rows, accounts, k)
    found, accepted = broker.replace(requests, numbers)
    for place, row in enumerate(rows.tolist()):
        _, _, quantity, price, good_for, _ = said(requests, place)
        new = oracles[row].replace(int(numbers[place]), quantity, price, good_for)
        assert (new is not None) == found[place]
        assert (new is not None and new.state is oracle_orders.State.ACCEPTED) == accepted[place]


def submit(requests: OrderRequests, broker: SimulatedBroker, oracles: list[Account]) -> None:
    """Submit orders on both sides."""
    accepted = broker.submit(requests)
    for place, row in enumerate(requests.rows.tolist()):
        *asked, reduce_only = said(requests, place)
        order = oracles[row].submit(*asked, reduce_only=reduce_only)
        assert (order.state is oracle_orders.State.ACCEPTED) == accepted[place], (row, order)


def random_requests(rng: np.random.Generator, rows: np.ndarray, accounts: Accounts, k: int, *, may_reduce: bool = True) -> OrderRequests:
    m = len(rows)
    symbol = rng.integers(k, size=m)
    price = accounts.price[rows, symbol]
    quantity = rng.normal(0, 0.7, m) * accounts.equity[rows] / price
    closing = rng.random(m) < 0.3
    quantity = np.where(closing, -accounts.position[rows, symbol], quantity)
    quantity[rng.random(m) < 0.02] = math.nan
    asked = price * np.exp(rng.normal(0, 0.02, m))
    asked[rng.random(m) < 0.02] = rng.choice([math.nan, -1.0, 0.0])
    good_for = np.where(rng.random(m) < 0.5, GOOD_TILL_CANCELLED, rng.integers(1, 5, m))
    reduce_only = rng.random(m) < 0.3 if may_reduce and rng.random() < 0.7 else None
    return OrderRequests(rows, symbol, rng.integers(len(OrderKind), size=m), quantity, asked, good_for, reduce_only)


def said(requests: OrderRequests, place: int) -> tuple[int, oracle_orders.Kind, float, float, int | None, bool]:
    good_for = int(requests.good_for[place])
    return (
        int(requests.symbol[place]),
        KINDS[OrderKind(int(requests.kind[place]))],
        float(requests.quantity[place]),
        float(requests.price[place]),
        None if good_for == GOOD_TILL_CANCELLED else good_for,
        requests.reduce_only is not None and bool(requests.reduce_only[place]),
    )


def states(broker: SimulatedBroker, oracles: list[Account]) -> None:
    """What was told of orders without a fill is where they are with the oracle."""
    events = broker.take_events().told()
    last = {
        (row, number): (state, reason)
        for row, number, state, reason in zip(*(getattr(events, n).tolist() for n in ("rows", "number", "state", "reason")), strict=True)
    }
    for (row, number), (state, reason) in last.items():
        if state != State.ACCEPTED:
            order = oracles[row].orders[number]
            assert order.state.name == State(state).name
            assert order.reason.name == Reason(reason).name
