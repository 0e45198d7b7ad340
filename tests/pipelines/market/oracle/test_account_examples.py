"""What README.md says of each order, cost and limit, in numbers that were worked out by hand."""

from __future__ import annotations

import math

import pytest

from tests.pipelines.market.oracle.account import Account
from tests.pipelines.market.oracle.orders import Kind, Order, Phase, Reason, State
from tests.pipelines.market.oracle.terms import Bar, Instrument, Rules, down, up

FREE = Rules(max_leverage=math.inf)
CALM = Bar(100.0, 110.0, 90.0, 105.0, 1_000.0)


def opened(terms: Instrument | None = None, rules: Rules = FREE) -> Account:
    return Account(rules, [terms or Instrument()], [100.0])


def last(account: Account) -> Order:
    return account.orders[-1]


@pytest.mark.parametrize(
    ("kind", "quantity", "price", "phase", "fill_price"),
    [
        (Kind.MARKET, 1.0, None, Phase.OPEN, 100.0),
        (Kind.MARKET, -1.0, None, Phase.OPEN, 100.0),
        (Kind.ON_OPEN, 1.0, None, Phase.OPEN, 100.0),
        (Kind.ON_CLOSE, -1.0, None, Phase.CLOSE, 105.0),
        (Kind.LIMIT, 1.0, 102.0, Phase.OPEN, 100.0),
        (Kind.LIMIT, 1.0, 100.0, Phase.OPEN, 100.0),
        (Kind.LIMIT, 1.0, 90.0, Phase.WITHIN, 90.0),
        (Kind.LIMIT, -1.0, 95.0, Phase.OPEN, 100.0),
        (Kind.LIMIT, -1.0, 110.0, Phase.WITHIN, 110.0),
        (Kind.STOP, 1.0, 95.0, Phase.OPEN, 100.0),
        (Kind.STOP, 1.0, 107.0, Phase.WITHIN, 107.0),
        (Kind.STOP, -1.0, 105.0, Phase.OPEN, 100.0),
        (Kind.STOP, -1.0, 90.0, Phase.WITHIN, 90.0),
    ],
)
def test_each_kind_fills_at_its_price(kind: Kind, quantity: float, price: float | None, phase: Phase, fill_price: float) -> None:
    account = opened()
    account.submit(0, kind, quantity, price)
    (fill,) = account.step([CALM]).fills
    assert (fill.phase, fill.price, fill.side * fill.quantity) == (phase, fill_price, quantity)
    assert account.cash == 10_000.0 - quantity * fill_price
    assert account.equity == account.cash + quantity * 105.0


@pytest.mark.parametrize(
    ("kind", "quantity", "price"),
    [(Kind.LIMIT, 1.0, 89.99), (Kind.LIMIT, -1.0, 110.01), (Kind.STOP, 1.0, 110.01), (Kind.STOP, -1.0, 89.99)],
)
def test_a_price_that_is_not_reached_does_not_fill(kind: Kind, quantity: float, price: float) -> None:
    account = opened()
    account.submit(0, kind, quantity, price)
    assert account.step([CALM]).fills == []
    assert last(account).state is State.ACCEPTED


@pytest.mark.parametrize("kind", [Kind.ON_OPEN, Kind.ON_CLOSE])
def test_orders_for_one_bar_expire_with_it(kind: Kind) -> None:
    account = opened(Instrument(volume_fraction=0.1))
    account.submit(0, kind, 500.0, good_for=9)
    account.step([CALM])
    assert (last(account).state, last(account).filled) == (State.EXPIRED, 100.0)


def test_a_market_order_fills_over_as_many_bars_as_the_volume_asks() -> None:
    account = opened(Instrument(volume_fraction=0.1, lot=3.0))
    account.submit(0, Kind.MARKET, 200.0)
    assert last(account).quantity == 198.0
    filled = [sum(fill.quantity for fill in account.step([CALM]).fills) for _ in range(3)]
    assert filled == [99.0, 99.0, 0.0]
    assert last(account).state is State.FILLED


def test_the_oldest_order_has_the_volume_first() -> None:
    account = opened(Instrument(volume_fraction=0.1))
    for _ in range(3):
        account.submit(0, Kind.MARKET, 60.0)
    fills = account.step([CALM]).fills
    assert [(fill.order, fill.quantity) for fill in fills] == [(0, 60.0), (1, 40.0)]
    assert [order.state for order in account.orders] == [State.FILLED, State.PARTLY_FILLED, State.ACCEPTED]


def test_a_halt_fills_nothing_and_a_triggered_stop_waits_as_a_market_order() -> None:
    account = opened(Instrument(volume_fraction=1.0))
    account.submit(0, Kind.STOP, 1.0, 107.0)
    assert account.step([Bar(110.0, 110.0, 110.0, 110.0, 0.0)]).fills == []
    (fill,) = account.step([CALM]).fills
    assert (fill.price, fill.phase) == (100.0, Phase.OPEN)


def test_an_order_is_good_for_its_bars() -> None:
    account = opened()
    account.submit(0, Kind.LIMIT, 1.0, 50.0, good_for=2)
    states = []
    for _ in range(3):
        account.step([CALM])
        states.append(last(account).state)
    assert states == [State.ACCEPTED, State.EXPIRED, State.EXPIRED]


def test_an_instrument_without_a_bar_waits() -> None:
    account = Account(FREE, [Instrument(), Instrument(borrow_fraction=0.01)], [100.0, 50.0])
    account.submit(1, Kind.ON_OPEN, -1.0)
    account.step([CALM, None])
    assert (last(account).state, account.price) == (State.ACCEPTED, [105.0, 50.0])
    account.step([None, Bar(60.0, 60.0, 60.0, 60.0, 1.0)])
    assert (last(account).state, account.borrow) == (State.FILLED, 0.6)


def test_spread_and_slippage_are_against_the_trader_and_ticks_too() -> None:
    account = opened(Instrument(spread_fraction=0.002, slippage_fraction=0.0005, tick=0.1))
    account.submit(0, Kind.MARKET, 1.0)
    account.submit(0, Kind.MARKET, -2.0)
    buy, sell = account.step([CALM]).fills  # 0.15 off, then to the tick
    assert [buy.price, sell.price] == pytest.approx([100.2, 99.8])
    assert account.slippage == pytest.approx(0.2 + 2 * 0.2)


def test_a_limit_pays_slippage_up_to_its_limit_and_the_bars_range() -> None:
    account = opened(Instrument(slippage_fraction=0.05))
    account.submit(0, Kind.LIMIT, 1.0, 102.0)
    account.submit(0, Kind.LIMIT, 1.0, 120.0)
    account.submit(0, Kind.LIMIT, -1.0, 80.0)
    fills = account.step([Bar(100.0, 103.0, 99.0, 100.0, 1.0)]).fills
    assert [fill.price for fill in fills] == [102.0, 103.0, 99.0]


@pytest.mark.parametrize(
    ("kind", "quantity", "price"), [(Kind.LIMIT, 1.0, 99.9), (Kind.LIMIT, -1.0, 100.0), (Kind.STOP, 1.0, 100.0), (Kind.STOP, -1.0, 99.9)]
)
def test_an_orders_price_is_rounded_against_the_trader(kind: Kind, quantity: float, price: float) -> None:
    account = opened(Instrument(tick=0.1))
    assert account.submit(0, kind, quantity, 99.97).price == pytest.approx(price, rel=1e-15)


def test_fees_are_of_an_order_not_of_its_parts() -> None:
    account = opened(Instrument(fee_fixed=1.0, fee_per_unit=0.01, fee_fraction=0.001, fee_minimum=9.0, volume_fraction=0.05))
    account.submit(0, Kind.MARKET, 100.0)
    fees = [fill.fee for _ in range(2) for fill in account.step([CALM]).fills]
    # 50 units of 100: 1 + 0.5 + 5 = 6.5, less than the minimum; 100 units: 1 + 1 + 10 = 12.
    assert fees == pytest.approx([9.0, 3.0])


def test_a_short_pays_for_its_borrow_at_each_close() -> None:
    account = opened(Instrument(borrow_fraction=0.01))
    account.submit(0, Kind.MARKET, -2.0)
    step = account.step([CALM])
    assert account.borrow == pytest.approx(0.01 * 2 * 105.0)
    assert step.equity == pytest.approx(10_000.0 - 2 * 5.0 - 2.1)


def test_a_buy_that_cant_be_paid_is_cut_to_what_can() -> None:
    account = opened(Instrument(fee_fraction=0.01, fee_fixed=5.0, slippage_fraction=0.01), Rules(max_leverage=1.0))
    account.submit(0, Kind.MARKET, 100.0)
    (fill,) = account.step([CALM]).fills
    assert fill.quantity == pytest.approx((10_000.0 - 5.0) / (101.0 * 1.01), rel=1e-12)
    assert account.cash == pytest.approx(0.0, abs=1e-9)
    assert (last(account).state, last(account).reason) == (State.CANCELLED, Reason.MARGIN)


def test_a_turn_closes_whole_and_opens_what_the_margin_carries() -> None:
    account = opened(rules=Rules(max_leverage=1.0))
    account.submit(0, Kind.MARKET, 100.0)
    account.step([Bar(100.0, 100.0, 100.0, 100.0, 1.0)])
    account.submit(0, Kind.MARKET, -200.0)
    (fill,) = account.step([Bar(80.0, 80.0, 80.0, 80.0, 1.0)]).fills  # equity 8,000: 100 units short at 80
    assert (fill.quantity, account.position, account.cash) == (200.0, [-100.0], 16_000.0)
    account.submit(0, Kind.MARKET, 200.0)
    (fill,) = account.step([Bar(100.0, 100.0, 100.0, 100.0, 1.0)]).fills  # equity 6,000: 60 units long at 100
    assert (fill.quantity, account.position, account.cash) == (160.0, [60.0], 0.0)


def test_the_minimum_fee_counts_in_what_can_be_paid() -> None:
    account = opened(Instrument(fee_minimum=1_000.0), Rules(max_leverage=1.0))
    account.submit(0, Kind.MARKET, 100.0)
    (fill,) = account.step([CALM]).fills
    assert (fill.quantity, fill.fee, account.cash) == (90.0, 1_000.0, 0.0)


def test_an_order_beyond_the_leverage_is_rejected_as_a_whole() -> None:
    account = opened(rules=Rules(max_leverage=2.0))
    assert account.submit(0, Kind.LIMIT, 150.0, 100.0).state is State.ACCEPTED
    refused = account.submit(0, Kind.MARKET, 51.0)
    assert (refused.state, refused.reason) == (State.REJECTED, Reason.MARGIN)
    assert account.submit(0, Kind.MARKET, 50.0).state is State.ACCEPTED


def test_a_short_that_is_not_allowed() -> None:
    account = opened(Instrument(short_allowed=False))
    assert account.submit(0, Kind.MARKET, -1.0).reason is Reason.SHORT
    account.submit(0, Kind.LIMIT, 5.0, 1.0)
    account.submit(0, Kind.MARKET, 2.0)
    account.submit(0, Kind.MARKET, -7.0)  # covered by the limit buy, which does not fill
    account.step([CALM])
    assert (last(account).filled, last(account).state, last(account).reason) == (2.0, State.CANCELLED, Reason.SHORT)
    assert account.position == [0.0]


@pytest.mark.parametrize(
    ("kind", "quantity", "price", "reason"),
    [
        (Kind.MARKET, 0.9, None, Reason.QUANTITY),
        (Kind.MARKET, 0.0, None, Reason.QUANTITY),
        (Kind.MARKET, math.nan, None, Reason.QUANTITY),
        (Kind.MARKET, -math.inf, None, Reason.QUANTITY),
        (Kind.LIMIT, 1.0, math.nan, Reason.PRICE),
        (Kind.STOP, 1.0, -1.0, Reason.PRICE),
        (Kind.LIMIT, 1.0, 0.005, Reason.PRICE),
    ],
)
def test_an_order_without_sense_is_rejected(kind: Kind, quantity: float, price: float | None, reason: Reason) -> None:
    account = opened(Instrument(lot=1.0, tick=0.01))
    order = account.submit(0, kind, quantity, price)
    assert (order.state, order.reason) == (State.REJECTED, reason)


def test_live_orders_are_bounded() -> None:
    account = opened(rules=Rules(max_leverage=math.inf, max_live_orders=1))
    account.submit(0, Kind.LIMIT, 1.0, 50.0)
    assert account.submit(0, Kind.MARKET, 1.0).reason is Reason.TOO_MANY
    replaced = account.replace(0, 2.0, 51.0)
    assert replaced is not None
    assert replaced.state is State.ACCEPTED


def test_cancel_and_replace() -> None:
    account = opened(rules=Rules(max_leverage=1.0))
    account.submit(0, Kind.LIMIT, 100.0, 50.0)
    refused = account.replace(0, 300.0, 60.0)
    assert refused is not None
    assert (refused.reason, account.orders[0].state) == (Reason.MARGIN, State.ACCEPTED)
    new = account.replace(0, 90.0, 95.0)
    assert new is not None
    assert (new.number, new.state, account.orders[0].reason) == (2, State.ACCEPTED, Reason.REPLACED)
    assert account.replace(0, 1.0, 95.0) is None
    assert account.cancel(new.number)
    assert not account.cancel(new.number)
    assert account.step([CALM]).fills == []
    assert [order.state for order in account.orders] == [State.CANCELLED, State.REJECTED, State.CANCELLED]


def test_a_margin_call_closes_everything_at_the_next_open() -> None:
    account = opened(rules=Rules(max_leverage=2.0, maintenance_fraction=0.25))
    account.submit(0, Kind.MARKET, 200.0)
    account.step([Bar(100.0, 100.0, 100.0, 100.0, 1.0)])
    waiting = account.submit(0, Kind.LIMIT, -1.0, 500.0)
    step = account.step([Bar(100.0, 100.0, 60.0, 66.0, 1.0)])  # equity 3,200 of a gross exposure of 13,200
    assert (step.equity, account.call, waiting.reason) == (3_200.0, True, Reason.MARGIN_CALL)
    assert account.submit(0, Kind.MARKET, -1.0).reason is Reason.MARGIN_CALL
    forced = next(order for order in account.orders if order.forced)
    assert not account.cancel(forced.number)
    assert account.replace(forced.number, 1.0) is None
    step = account.step([Bar(40.0, 40.0, 40.0, 40.0, 1.0)])
    assert (account.position, account.call, step.equity) == ([0.0], False, -2_000.0)
    assert step.reward == pytest.approx(100.0 * math.log(10.0 / 3_200.0))


def test_realised_profit_and_average_price() -> None:
    account = opened()
    seen = []
    for quantity, price in ((2.0, 100.0), (2.0, 110.0), (-1.0, 120.0), (-5.0, 130.0), (2.0, 120.0)):
        account.submit(0, Kind.MARKET, quantity)
        account.step([Bar(price, price, price, price, 1.0)])
        seen.append((account.position[0], account.average[0], account.realised))
    assert seen == [(2.0, 100.0, 0.0), (4.0, 105.0, 0.0), (3.0, 105.0, 15.0), (-2.0, 130.0, 90.0), (0.0, 0.0, 110.0)]


@pytest.mark.parametrize(
    ("value", "step", "lower", "upper"),
    [
        (0.3, 0.1, 0.3, 0.3),
        (0.7, 0.1, 0.7, 0.7),
        (0.35, 0.1, 3 * 0.1, 4 * 0.1),
        (1e-15, 0.1, 0.0, 0.1),
        (7.0, 0.0, 7.0, 7.0),
        (0.0, 0.1, 0.0, 0.0),
    ],
)
def test_a_value_on_the_grid_stays_the_float_it_is(value: float, step: float, lower: float, upper: float) -> None:
    assert (down(value, step), up(value, step)) == (lower, upper)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: Bar(100.0, 99.0, 90.0, 95.0, 1.0), "low <= open"),
        (lambda: Bar(1.0, 1.0, 1.0, 1.0, math.nan), "volume"),
        (lambda: Instrument(tick=-1.0), "tick"),
        (lambda: Instrument(fee_fraction=1.0), "fee_fraction"),
        (lambda: Instrument(volume_fraction=0.0), "volume_fraction"),
        (lambda: Rules(max_leverage=0.5), "max_leverage"),
        (lambda: Rules(max_leverage=2.0, maintenance_fraction=0.5), "maintenance_fraction"),
        (lambda: Rules(max_leverage=math.inf, maintenance_fraction=0.1), "maintenance_fraction"),
        (lambda: Account(Rules(max_live_orders=1), [Instrument()] * 2, [1.0, 1.0]), "max_live_orders"),
        (lambda: opened().submit(0, Kind.LIMIT, 1.0), "price"),
        (lambda: opened().submit(0, Kind.MARKET, 1.0, good_for=0), "good_for"),
        (lambda: opened().step([None]), "bars"),
    ],
)
def test_a_mistake_is_named(wrong: object, named: str) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=named):
        wrong()


@pytest.mark.parametrize(
    ("side", "limit", "bar", "phase", "reference", "fill_price"),
    [
        (1.0, 101.0, CALM, Phase.OPEN, 100.0, 101.0),  # the ask at the open is 101: at the limit, with nothing left for the slippage
        (1.0, 101.2, CALM, Phase.OPEN, 100.0, 101.1),  # the ask and the slippage
        (1.0, 103.0, Bar(100.0, 100.0, 90.0, 95.0, 1.0), Phase.OPEN, 100.0, 101.0),  # no ask of the bar is higher
        (1.0, 100.9, CALM, Phase.WITHIN, 100.9 / 1.01, 100.9),  # the price is above the open, and below the ask
        (1.0, 90.9, CALM, Phase.WITHIN, 90.0, 90.9),
        (-1.0, 99.0, CALM, Phase.OPEN, 100.0, 99.0),
        (-1.0, 98.8, CALM, Phase.OPEN, 100.0, 98.9),
        (-1.0, 97.0, Bar(100.0, 105.0, 100.0, 105.0, 1.0), Phase.OPEN, 100.0, 99.0),
        (-1.0, 99.1, CALM, Phase.WITHIN, 99.1 / 0.99, 99.1),
        (-1.0, 108.9, CALM, Phase.WITHIN, 110.0, 108.9),
    ],
)
def test_a_limit_waits_for_the_side_of_the_spread_that_it_trades_with(
    side: float, limit: float, bar: Bar, phase: Phase, reference: float, fill_price: float
) -> None:
    account = opened(Instrument(spread_fraction=0.02, slippage_fraction=0.001))
    account.submit(0, Kind.LIMIT, side, limit)
    (fill,) = account.step([bar]).fills
    assert fill.phase is phase
    assert (fill.reference, fill.price) == pytest.approx((reference, fill_price), rel=1e-14)


@pytest.mark.parametrize(("side", "limit"), [(1.0, 90.89), (-1.0, 108.91)])
def test_a_limit_rests_where_the_price_reaches_it_and_the_spread_does_not(side: float, limit: float) -> None:
    account = opened(Instrument(spread_fraction=0.02))
    account.submit(0, Kind.LIMIT, side, limit)
    assert account.step([CALM]).fills == []
    assert last(account).state is State.ACCEPTED


NO_SHORTS = Instrument(short_allowed=False)


def holding(units: float, terms: Instrument | None = None, rules: Rules = FREE) -> Account:
    account = opened(terms, rules)
    account.submit(0, Kind.MARKET, units)
    account.step([CALM])
    return account


def test_a_reduce_only_order_is_cut_to_the_position_that_another_leaves() -> None:
    account = holding(10.0, NO_SHORTS)
    account.submit(0, Kind.LIMIT, -7.0, 108.0)
    stop = account.submit(0, Kind.STOP, -10.0, 95.0, reduce_only=True)
    assert stop.state is State.ACCEPTED  # although both together would sell 17
    limit_fill, stop_fill = account.step([CALM]).fills
    assert (limit_fill.quantity, stop_fill.quantity) == (7.0, 3.0)
    assert (stop.state, stop.reason, account.position) == (State.CANCELLED, Reason.REDUCE_ONLY, [0.0])


def test_a_reduce_only_order_is_over_with_the_position() -> None:
    account = holding(10.0)
    stop = account.submit(0, Kind.STOP, -10.0, 50.0, reduce_only=True)
    account.submit(0, Kind.MARKET, -10.0)
    account.step([CALM])
    assert (stop.state, stop.reason, stop.filled) == (State.CANCELLED, Reason.REDUCE_ONLY, 0.0)


@pytest.mark.parametrize(("held", "quantity"), [(0.0, -1.0), (0.0, 1.0), (5.0, 1.0), (-5.0, -1.0)])
def test_a_reduce_only_order_without_a_position_to_reduce_is_refused(held: float, quantity: float) -> None:
    account = holding(held) if held else opened()
    order = account.submit(0, Kind.STOP, quantity, 95.0, reduce_only=True)
    assert (order.state, order.reason) == (State.REJECTED, Reason.REDUCE_ONLY)


def test_what_only_reduces_is_left_out_of_what_is_projected() -> None:
    account = holding(100.0, rules=Rules())  # all of the equity
    account.submit(0, Kind.STOP, -100.0, 50.0, reduce_only=True)
    assert account.submit(0, Kind.MARKET, 10.0).reason is Reason.MARGIN
