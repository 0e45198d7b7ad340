"""The oracle holds what README.md promises under random orders, and each planted fault breaks it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipelines.market.oracle.account import Account
from tests.pipelines.market.oracle.ledger import check_session
from tests.pipelines.market.oracle.matching import Matching
from tests.pipelines.market.oracle.orders import Kind, Order, Phase, Reason, State
from tests.pipelines.market.oracle.session import play
from tests.pipelines.market.oracle.terms import Bar, Instrument, Rules, down

_cut, _fill, _move, _reference = Matching._cut, Matching._fill, Matching._move, Order.reference

SEEDS = range(60)
N_STEPS = 60


@pytest.fixture(autouse=True, scope="module")
def checked_fills() -> Iterator[None]:
    """Check the margin right after each fill, which nothing can tell from the outside."""

    def checked(self: Matching, order: Order, phase: Phase, quantity: float, reference: float, price: float) -> None:
        account = self.account
        before = abs(account.position[order.instrument])
        _fill(self, order, phase, quantity, reference, price)
        leverage = account.rules.max_leverage
        if abs(account.position[order.instrument]) > before and leverage < math.inf:
            assert account.gross <= leverage * account.equity + 1e-9 * account.rules.initial_cash, f"order {order}: beyond the margin"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Matching, "_fill", checked)
        yield


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_random_sessions_keep_every_promise(rng: random.Random) -> None:
    check_session(rng, n_steps=12)


@pytest.mark.long
def test_long_sessions_meet_every_state_and_reason() -> None:
    orders = check_sessions()
    met = {(order.kind, order.state) for order in orders}
    finals = (State.REJECTED, State.FILLED, State.CANCELLED)
    assert met >= {(kind, state) for kind in Kind for state in (*finals, State.EXPIRED)}
    assert {order.reason for order in orders} == set(Reason)
    assert State.FILLED in {order.state for order in orders if order.forced}


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_without_leverage_and_shorts_cash_is_never_negative(rng: random.Random) -> None:
    """But for a sale that brings less than its fee; so this market has no fixed or minimum fee."""
    terms = Instrument(
        tick=rng.choice((0.0, 0.01)),
        lot=rng.choice((0.0, 1.0)),
        fee_fraction=0.002,
        fee_per_unit=0.01,
        slippage_fraction=0.001,
        volume_fraction=rng.choice((0.2, math.inf)),
        short_allowed=False,
    )
    account = Account(Rules(), [terms, terms], [100.0, 50.0])
    for turn in play(rng, account, n_steps=12):
        assert account.cash >= -1e-9 * account.rules.initial_cash, turn


def check_sessions() -> list[Order]:
    """Check a session of each seed; return all their orders."""
    return [order for seed in SEEDS for order in check_session(random.Random(seed), N_STEPS).orders]


Fault = tuple[type, str, Callable[..., object]]

FAULTS: list[Fault] = []


def planted(owner: type, name: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Have a function take a method's place as a fault."""

    def plant(function: Callable[..., object]) -> Callable[..., object]:
        FAULTS.append((owner, name, function))
        return function

    return plant


@planted(Matching, "_fill_price")
def a_limit_slips_beyond_its_limit(self: Matching, order: Order, reference: float) -> float:
    terms = self.account.instruments[order.instrument]
    return reference + order.side * reference * (terms.spread_fraction / 2 + terms.slippage_fraction)


@planted(Matching, "_fill_price")
def slippage_is_for_the_trader(self: Matching, order: Order, reference: float) -> float:
    return reference - order.side * reference * self.account.instruments[order.instrument].slippage_fraction


@planted(Matching, "_bounded_by_volume")
def each_order_has_the_volume_for_itself(self: Matching, order: Order) -> float:
    terms = self.account.instruments[order.instrument]
    if terms.volume_fraction == math.inf:
        return order.left
    return min(order.left, down(terms.volume_fraction * self.bars[order.instrument].volume, terms.lot))


@planted(Matching, "_bounded_by_volume")
def lots_are_not_looked_at(self: Matching, order: Order) -> float:
    terms = self.account.instruments[order.instrument]
    cap = terms.volume_fraction * self.bars[order.instrument].volume if terms.volume_fraction < math.inf else math.inf
    return min(order.left, max(cap - self.used[order.instrument], 0.0))


@planted(Matching, "_cut")
def a_fill_is_not_checked_again(self: Matching, order: Order, wanted: float, reference: float, price: float) -> tuple[float, Reason]:
    return wanted, Reason.NONE


@planted(Matching, "_cut")
def a_reduce_only_order_turns_the_position(
    self: Matching, order: Order, wanted: float, reference: float, price: float
) -> tuple[float, Reason]:
    order.reduce_only, was = False, order.reduce_only
    result = _cut(self, order, wanted, reference, price)
    order.reduce_only = was
    return result


@planted(Matching, "_fit")
def the_fee_is_left_out_of_the_margin(self: Matching, order: Order, closing: float, reference: float, price: float) -> float:
    account = self.account
    gross = account.gross - closing * reference
    return max(0.0, account.rules.max_leverage * account.equity - gross) / reference


@planted(Matching, "_move")
def a_sale_buys(self: Matching, order: Order, quantity: float, price: float) -> None:
    _move(
        self,
        Order(number=0, instrument=order.instrument, kind=order.kind, side=1, quantity=1.0, price=None, good_for=None),
        quantity,
        price,
    )


@planted(Matching, "_move")
def profits_of_shorts_have_the_wrong_sign(self: Matching, order: Order, quantity: float, price: float) -> None:
    account = self.account
    before, was_short = account.realised, account.position[order.instrument] < 0
    _move(self, order, quantity, price)
    if was_short:
        account.realised = before - (account.realised - before)


@planted(Matching, "_fill")
def the_fee_is_never_paid(self: Matching, order: Order, phase: Phase, quantity: float, reference: float, price: float) -> None:
    fees = self.account.fees
    _fill(self, order, phase, quantity, reference, price)
    self.account.cash += self.account.fees - fees


@planted(Matching, "_fill")
def the_minimum_is_paid_with_each_part(self: Matching, order: Order, phase: Phase, quantity: float, reference: float, price: float) -> None:
    order.fee_paid = 0.0
    _fill(self, order, phase, quantity, reference, price)


@planted(Account, "_pay_borrow")
def a_short_earns_its_borrow_cost(self: Account, present: dict[int, Bar]) -> None:
    for k, bar in present.items():
        self.cash += self.instruments[k].borrow_fraction * max(-self.position[k], 0.0) * bar.close


@planted(Account, "_age")
def orders_never_expire(self: Account, present: dict[int, Bar]) -> None:
    for order in self.live():
        order.bars_seen += order.instrument in present


@planted(Order, "reference")
def a_stop_fills_at_its_price_through_a_gap(self: Order, phase: Phase, bar: Bar, spread_fraction: float) -> float | None:
    met = _reference(self, phase, bar, spread_fraction)
    return self.price if met is not None and self.kind is Kind.STOP and self.price is not None and not self.triggered else met


@planted(Order, "reference")
def a_buy_fills_at_the_low(self: Order, phase: Phase, bar: Bar, spread_fraction: float) -> float | None:
    met = _reference(self, phase, bar, spread_fraction)
    return bar.low * 0.999 if met is not None and self.side > 0 else met


@planted(Order, "reference")
def a_limit_pays_no_spread(self: Order, phase: Phase, bar: Bar, spread_fraction: float) -> float | None:
    return _reference(self, phase, bar, 0.0)


@planted(Account, "_accept")
def an_order_fills_in_the_bar_of_its_decision(self: Account, order: Order) -> None:
    order.become(State.ACCEPTED)
    self._working.append(order)
    matching = Matching(self, {k: Bar(price, price, price, price, 1e9) for k, price in enumerate(self.price)})
    matching.run(Phase.OPEN)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[2].__name__)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, function = fault
    monkeypatch.setattr(owner, name, function)
    with pytest.raises(AssertionError):
        check_sessions()
