"""What must hold of an account after every bar (README.md, section 8), told from its bars, orders and fills alone."""

from __future__ import annotations

import math
import random

from tests.pipelines.market.oracle.account import Account
from tests.pipelines.market.oracle.orders import Fill, Kind, Order, State
from tests.pipelines.market.oracle.session import Turn, draw_account, play
from tests.pipelines.market.oracle.terms import Bar, Instrument, down, up


def check_session(rng: random.Random, n_steps: int) -> Account:
    """Play a random session and raise an AssertionError as soon as anything doesn't hold."""
    account = draw_account(rng)
    ledger = Ledger(account)
    for turn in play(rng, account, n_steps):
        ledger.check(turn)
    return account


def near(value: float, expected: float, scale: float) -> bool:
    """Tell whether they differ by what rounding and dust explain: 1e-11 of the amounts that were added up."""
    return abs(value - expected) <= 1e-11 * scale


class Ledger:
    """A second book of an account: what its fills come to at the prices of the market, and its costs apart."""

    def __init__(self, account: Account) -> None:
        self.account = account
        n = len(account.instruments)
        self.free_cash = account.rules.initial_cash
        """Cash if spread, slippage, fees and borrowing cost nothing."""
        self.position = [0.0] * n
        self.filled: dict[int, float] = {}
        self.fee_of: dict[int, float] = {}
        self.scale = account.rules.initial_cash
        """Sum of all amounts that moved: what rounding errors are in proportion to."""
        self.costs = (0.0, 0.0, 0.0)
        self.n_orders = [0]
        """After each step, how many orders there were when its commands had been given."""
        self.triggered: set[int] = set()
        """Live stops that an earlier bar has made market orders."""
        self.equity = account.rules.initial_cash

    def check(self, turn: Turn) -> None:
        for fill in turn.step.fills:
            bar = turn.bars[fill.instrument]
            assert bar is not None, f"{fill}: filled without a bar"
            order = self.account.orders[fill.order]
            assert len(self.n_orders) >= bar.steps, f"{fill}: filled in a bar that is older than the account"
            assert order.number < self.n_orders[-bar.steps], f"{fill}: filled in a bar that had begun when it was submitted"
            self._check_fill(fill, order, bar, self.account.instruments[fill.instrument])
            self._book(fill)
        self._check_volumes(turn)
        self._check_orders()
        self._check_money(turn)
        assert not self.account.call or all(order.forced for order in self.account.live())
        self.n_orders.append(len(self.account.orders) + len(turn.commands))
        self.triggered = {order.number for order in self.account.live() if order.triggered}

    def _check_fill(self, fill: Fill, order: Order, bar: Bar, terms: Instrument) -> None:
        assert fill.quantity > 0
        assert fill.fee >= 0
        assert fill.side * (fill.price - fill.reference) >= 0, f"{fill}: better than the market"
        assert bar.low <= fill.reference <= bar.high, f"{fill}: outside {bar}"
        if order.kind is Kind.LIMIT:
            assert order.price is not None
            assert fill.side * (order.price - fill.price) >= 0, f"{fill}: worse than {order.price}"
            half = terms.spread_fraction / 2
            assert bar.low * (1 - half) <= fill.price <= bar.high * (1 + half), f"{fill}: outside {bar}"
            paid = fill.side * (fill.price - fill.reference)
            assert paid >= half * fill.reference - 1e-12 * fill.reference, f"{fill}: pays less than half the spread"
        else:
            worst = fill.reference * (terms.spread_fraction / 2 + terms.slippage_fraction) + terms.tick
            assert abs(fill.price - fill.reference) <= worst * (1 + 1e-9)
            assert fill.price in (up(fill.price, terms.tick), down(fill.price, terms.tick)), f"{fill}: off the tick {terms.tick}"
        if order.reduce_only:
            held = -fill.side * self.position[fill.instrument]
            assert fill.quantity <= held * (1 + 1e-9), f"{fill}: reduces a position of {held}"
        if order.kind is Kind.STOP and order.number not in self.triggered and order.price is not None:
            assert fill.side * (fill.reference - order.price) >= 0, f"{fill}: before the stop {order.price}"
        if not order.forced:
            assert math.isclose(fill.quantity, down(fill.quantity, terms.lot), rel_tol=1e-9), f"{fill}: off the lot {terms.lot}"

    def _book(self, fill: Fill) -> None:
        k = fill.instrument
        self.free_cash -= fill.side * fill.quantity * fill.reference
        self.position[k] += fill.side * fill.quantity
        self.filled[fill.order] = self.filled.get(fill.order, 0.0) + fill.quantity
        self.fee_of[fill.order] = self.fee_of.get(fill.order, 0.0) + fill.fee
        self.scale += fill.quantity * fill.price + fill.fee

    def _check_volumes(self, turn: Turn) -> None:
        for k, bar in enumerate(turn.bars):
            taken = sum(fill.quantity for fill in turn.step.fills if fill.instrument == k)
            share = self.account.instruments[k].volume_fraction
            if bar is not None and share < math.inf:
                assert taken <= share * bar.volume * (1 + 1e-9), f"{taken} of a volume of {bar.volume}"

    def _check_orders(self) -> None:
        live = self.account.live()
        assert len(live) <= self.account.rules.max_live_orders
        for order in live + self.account.orders[-8:]:
            assert near(order.filled + order.left, order.quantity, order.quantity)
            assert near(order.filled, self.filled.get(order.number, 0.0), order.quantity)
            assert (order.state is State.FILLED) == (order.left == 0 and order.quantity > 0)
            assert order.good_for is None or order.bars_seen < order.good_for or not order.is_live
            self._check_fee(order)
        for order in live:
            assert not order.reduce_only or order.side * self.account.position[order.instrument] < 0, f"{order}: has nothing to reduce"

    def _check_fee(self, order: Order) -> None:
        terms = self.account.instruments[order.instrument]
        variable = terms.fee_fixed + terms.fee_per_unit * order.filled + terms.fee_fraction * order.notional
        expected = max(terms.fee_minimum, variable) if order.filled > 0 else 0.0
        assert math.isclose(self.fee_of.get(order.number, 0.0), expected, rel_tol=1e-9, abs_tol=1e-9)

    def _check_money(self, turn: Turn) -> None:
        account = self.account
        for k, bar in enumerate(turn.bars):
            if bar is not None:
                assert account.price[k] == bar.close
            assert abs(account.position[k] - self.position[k]) * account.price[k] <= 1e-11 * self.scale
            if not account.instruments[k].short_allowed:
                assert account.position[k] >= 0
        values = [position * price for position, price in zip(account.position, account.price, strict=True)]
        self.scale += sum(abs(value) for value in values)
        assert near(turn.step.equity, account.cash + math.fsum(values), self.scale)
        costs = (account.fees, account.slippage, account.borrow)
        assert all(now >= before >= 0 for now, before in zip(costs, self.costs, strict=True)), f"costs fell: {self.costs}, {costs}"
        free_equity = self.free_cash + math.fsum(values)
        assert near(turn.step.equity, free_equity - sum(costs), self.scale), "equity is not what a free market gives, less the costs"
        booked = account.rules.initial_cash + account.realised + account.unrealised - account.fees - account.borrow
        assert near(turn.step.equity, booked, self.scale), "equity is not the profit, less the costs"
        self._check_borrow(turn, costs)
        floor = account.rules.equity_floor_fraction * account.rules.initial_cash
        gain = math.log(max(turn.step.equity, floor)) - math.log(max(self.equity, floor))
        assert abs(turn.step.reward - account.rules.reward_scale * gain) <= 1e-9 * account.rules.reward_scale
        self.costs, self.equity = costs, turn.step.equity

    def _check_borrow(self, turn: Turn, costs: tuple[float, float, float]) -> None:
        due = math.fsum(
            self.account.instruments[k].borrow_fraction * max(-self.account.position[k], 0.0) * bar.close
            for k, bar in enumerate(turn.bars)
            if bar is not None
        )
        assert near(costs[2] - self.costs[2], due, self.scale)
