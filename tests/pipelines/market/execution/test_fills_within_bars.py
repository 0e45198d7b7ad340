"""Nothing fills outside a bar's range, without a bar, beyond its volume, or better than the market: of the broker itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import BarRows
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.execution.next_open import NextOpen
from policyserver.pipelines.market.execution.order_table import PRICE
from policyserver.pipelines.market.instruments import InstrumentConfig, Instruments
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED, OrderKind, OrderRequests
from policyserver.pipelines.market.rows import ALL

BEGINNING = 100.0
BARS = 8


@dataclass(frozen=True)
class Move:
    """A bar, relative to the price before it."""

    gap: float
    change: float
    above: float
    below: float
    volume: float
    is_there: bool


@dataclass(frozen=True)
class Asked:
    """An order for a part of the initial equity."""

    symbol: int
    kind: OrderKind
    share: float
    distance: float
    good_for: int


@dataclass(frozen=True)
class Turn:
    """A bar of each symbol, and the orders that are given at its close."""

    moves: tuple[Move, ...]
    asked: tuple[Asked, ...]


def moves(*, always: bool) -> st.SearchStrategy[Move]:
    step, reach = st.sampled_from([0.0, -0.05, -0.004, 0.003, 0.06]), st.sampled_from([0.0, 0.002, 0.05])
    return st.builds(Move, step, step, reach, reach, st.sampled_from([0.0, 7.0, 400.0]), st.just(True) if always else st.booleans())


def turns(n_symbols: int, kinds: list[OrderKind], *, always: bool) -> st.SearchStrategy[list[Turn]]:
    asked = st.builds(
        Asked,
        st.integers(0, n_symbols - 1),
        st.sampled_from(kinds),
        st.sampled_from([-1.5, -0.3, 0.2, 0.9]),
        st.sampled_from([-0.05, -0.003, 0.0, 0.002, 0.06]),
        st.sampled_from([1, 2, GOOD_TILL_CANCELLED]),
    )
    of_symbols = st.tuples(*[moves(always=always)] * n_symbols)
    most = 1 if always else 3
    return st.lists(st.builds(Turn, of_symbols, st.lists(asked, max_size=most).map(tuple)), min_size=2, max_size=BARS)


terms = st.builds(
    InstrumentConfig,
    tick=st.sampled_from([0.0, 0.01, 0.5]),
    lot=st.sampled_from([0.0, 1.0]),
    spread_fraction=st.sampled_from([0.0, 0.01]),
    slippage_fraction=st.sampled_from([0.0, 0.004]),
    volume_fraction=st.sampled_from([None, 0.1, 1.0]),
)
accounts_of = st.sampled_from(
    [AccountConfig(max_leverage=None), AccountConfig(max_leverage=2.0, maintenance_fraction=0.3), AccountConfig()]
)


class Game:
    """A broker of one row, whose fills are held against the bar that they are of."""

    def __init__(self, config: AccountConfig, instruments: list[InstrumentConfig]) -> None:
        self.instruments = instruments
        self.accounts = Accounts(1, len(instruments))
        self.accounts.begin(ALL, config.initial_equity, np.full((1, len(instruments)), BEGINNING))
        self.broker = SimulatedBroker(self.accounts, Instruments(1, instruments), config)
        self.orders: dict[int, tuple[OrderKind, float]] = {}
        """Kind and price, on the grid, of each order that was given."""
        self.fills = 0

    def play(self, turns: list[Turn], *, tells_of_absence: bool) -> None:
        for turn in turns:
            bar, present = self._bar(turn), np.array([[move.is_there for move in turn.moves]])
            self.broker.fill(ALL, bar, present if tells_of_absence else None)
            self._check(bar, present)
            self.accounts.value(ALL)
            self.accounts.settle(ALL)
            self.broker.call_margins(ALL)
            for asked in turn.asked:
                self._submit(asked)

    def _bar(self, turn: Turn) -> BarRows:
        def prices() -> Iterator[list[float]]:
            for place, move in enumerate(turn.moves):
                first = float(self.accounts.price[0, place]) * (1 + move.gap)
                last = first * (1 + move.change)
                of_bar = first, max(first, last) * (1 + move.above), min(first, last) * (1 - move.below), last
                tick = self.instruments[place].tick
                yield [max(round(price / tick), 1) * tick if tick else price for price in of_bar]

        open_, high, low, close = np.array(list(prices())).T[:, None, :]
        return BarRows.of(np.zeros(1, dtype=np.int64), open_, high, low, close, np.array([[move.volume for move in turn.moves]]))

    def _submit(self, asked: Asked) -> None:
        price = float(self.accounts.price[0, asked.symbol])
        request = OrderRequests(
            np.zeros(1, dtype=np.int64),
            np.array([asked.symbol]),
            np.array([int(asked.kind)]),
            np.array([asked.share * 10_000.0 / price]),
            np.array([price * (1 + asked.distance)]),
            np.array([asked.good_for]),
        )
        number = int(self.accounts.orders[0])
        on_grid = self.broker.orders_of(request)
        self.broker.submit(request)
        self.orders[number] = asked.kind, float(on_grid[0, PRICE])

    def _check(self, bar: BarRows, present: np.ndarray) -> None:
        fills = self.broker.take_fills()
        taken = np.zeros(len(self.instruments))
        for number, symbol, quantity, reference, price in zip(
            *(getattr(fills, name).tolist() for name in ("number", "symbol", "quantity", "reference_price", "price")), strict=True
        ):
            terms, side = self.instruments[symbol], math.copysign(1.0, quantity)
            low, high = float(bar.low[0, symbol]), float(bar.high[0, symbol])
            kind, own = self.orders.get(number, (OrderKind.MARKET, 0.0))  # else a margin call has given it
            assert quantity != 0
            assert present[0, symbol], "filled without a bar"
            assert low <= reference <= high, "the market never had that price"
            assert side * (price - reference) >= 0, "better than the market"
            if kind is OrderKind.LIMIT:
                assert side * (own - price) >= 0, "worse than its limit"
                half = terms.spread_fraction / 2
                assert low * (1 - half) <= price <= high * (1 + half), "nobody traded there"
                assert side * (price - reference) >= (half - 1e-12) * reference, "pays less than half the spread"
            else:
                costs = reference * (terms.spread_fraction / 2 + terms.slippage_fraction) + terms.tick
                assert abs(price - reference) <= costs * (1 + 1e-9), "farther from the market than the costs and a tick"
            taken[symbol] += abs(quantity)
        for symbol, terms in enumerate(self.instruments):
            if terms.volume_fraction is not None:
                assert taken[symbol] <= terms.volume_fraction * bar.volume[0, symbol] * (1 + 1e-9), "more than its part of the volume"
        self.fills += len(fills.rows)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(st.data(), accounts_of, st.lists(terms, min_size=1, max_size=2))
def test_each_fill_is_in_the_range_of_its_bar(data: st.DataObject, config: AccountConfig, instruments: list[InstrumentConfig]) -> None:
    game = Game(config, instruments)
    game.play(data.draw(turns(len(instruments), list(OrderKind), always=False)), tells_of_absence=True)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(turns(1, [OrderKind.MARKET], always=True), accounts_of)
def test_so_is_each_of_a_market_order_that_waits_apart(played: list[Turn], config: AccountConfig) -> None:
    Game(config, [InstrumentConfig(spread_fraction=0.01, slippage_fraction=0.004)]).play(played, tells_of_absence=False)


def test_the_games_have_fills_of_each_kind_and_of_orders_that_wait_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the properties would hold of nothing."""
    fill, apart = NextOpen.fill, 0

    def counted(waiting: NextOpen) -> None:
        nonlocal apart
        apart += 1
        fill(waiting)

    monkeypatch.setattr(NextOpen, "fill", counted)
    still = Move(0.0, 0.0, 0.05, 0.05, 400.0, True)
    for kind, distance in ((OrderKind.LIMIT, -0.003), (OrderKind.STOP, 0.002), *((kind, 0.0) for kind in (0, 3, 4))):
        game = Game(AccountConfig(), [InstrumentConfig()])
        game.play([Turn((still,), (Asked(0, OrderKind(kind), 0.2, distance, 1),)), Turn((still,), ())], tells_of_absence=False)
        assert game.fills == 1, kind
    assert apart == 1
