"""The oracle: one account that fills its orders from bars, one object and one number at a time. README.md says what each part does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.pipelines.market.oracle.orders import Fill, Kind, Order, Phase, Reason, State
from tests.pipelines.market.oracle.terms import DUST, FIT, LEAST, MARGIN, Bar, Instrument, Rules, down, up


@dataclass(frozen=True, slots=True)
class Step:
    fills: list[Fill]
    equity: float
    reward: float


class Account:
    def __init__(self, rules: Rules, instruments: Sequence[Instrument], prices: Sequence[float]) -> None:
        """Open the account, without positions, at the closes of the bars at which the first orders are decided."""
        if len(prices) != len(instruments):
            raise ValueError(f"prices: expected one for each of {len(instruments)} instruments, received {len(prices)}")
        if rules.max_live_orders < len(instruments):
            raise ValueError(f"max_live_orders: expected at least one for each instrument, received {rules.max_live_orders}")
        self.rules = rules
        self.instruments = list(instruments)
        self.price = list(prices)
        self.cash = rules.initial_cash
        self.position = [0.0] * len(instruments)
        self.average = [0.0] * len(instruments)
        self.fees = 0.0
        self.slippage = 0.0
        self.borrow = 0.0
        self.turnover = 0.0
        self.realised = 0.0
        self.n_fills = 0
        self.call = False
        self.marked_equity = rules.initial_cash
        self.orders: list[Order] = []
        """Every order there was; an order's number is its place."""
        self._working: list[Order] = []
        """The live orders, oldest first, and some that no longer are."""

    # What the account is worth

    @property
    def equity(self) -> float:
        total = self.cash
        for position, price in zip(self.position, self.price, strict=True):
            total = total + position * price
        return total

    @property
    def gross(self) -> float:
        return self._gross(self.position)

    @property
    def unrealised(self) -> float:
        total = 0.0
        for position, price, average in zip(self.position, self.price, self.average, strict=True):
            total = total + position * (price - average)
        return total

    @property
    def margin_is_on(self) -> bool:
        return self.rules.max_leverage < math.inf

    def live(self) -> list[Order]:
        """Return the live orders, oldest first."""
        self._working = [order for order in self._working if order.is_live]
        return list(self._working)

    def _gross(self, positions: Sequence[float]) -> float:
        total = 0.0
        for position, price in zip(positions, self.price, strict=True):
            total = total + abs(position) * price
        return total

    # Section 4: what the trader can ask for at the close of a bar

    def submit(self, instrument: int, kind: Kind, quantity: float, price: float | None = None, good_for: int | None = None) -> Order:
        return self._submit(instrument, kind, quantity, price, good_for, instead_of=None)

    def cancel(self, number: int) -> bool:
        order = self.orders[number]
        if not order.is_live or order.forced:
            return False
        order.become(State.CANCELLED, Reason.TRADER)
        return True

    def replace(self, number: int, quantity: float, price: float | None = None, good_for: int | None = None) -> Order | None:
        old = self.orders[number]
        if not old.is_live or old.forced:
            return None
        new = self._submit(old.instrument, old.kind, quantity, price, good_for, instead_of=old)
        if new.is_live:
            old.become(State.CANCELLED, Reason.REPLACED)
        return new

    def _submit(
        self, instrument: int, kind: Kind, quantity: float, price: float | None, good_for: int | None, instead_of: Order | None
    ) -> Order:
        if good_for is not None and good_for < 1:
            raise ValueError(f"good_for: expected at least 1, received {good_for}")
        if kind.is_priced and price is None:
            raise ValueError(f"price: expected a number for a {kind.value} order, received None")
        terms = self.instruments[instrument]
        side = 1 if quantity > 0 else -1
        order = Order(
            number=len(self.orders),
            instrument=instrument,
            kind=kind,
            side=side,
            quantity=down(abs(quantity), terms.lot) if math.isfinite(quantity) else 0.0,
            price=self._order_price(kind, side, price, terms.tick),
            good_for=1 if kind.is_for_one_bar else good_for,
        )
        others = [other for other in self.live() if other is not instead_of]
        reason = self._refusal(order, others)
        self.orders.append(order)
        if reason is Reason.NONE:
            self._accept(order)
        else:
            order.become(State.REJECTED, reason)
        return order

    def _accept(self, order: Order) -> None:
        order.become(State.ACCEPTED)
        self._working.append(order)

    @staticmethod
    def _order_price(kind: Kind, side: int, price: float | None, tick: float) -> float | None:
        if price is None or not kind.is_priced:
            return None
        if not (math.isfinite(price) and price > 0):
            return 0.0
        rounds_down = (kind is Kind.LIMIT) == (side > 0)
        return down(price, tick) if rounds_down else up(price, tick)

    def _refusal(self, order: Order, others: list[Order]) -> Reason:
        if order.quantity == 0:
            return Reason.QUANTITY
        if order.price is not None and order.price <= 0:
            return Reason.PRICE
        if self.call:
            return Reason.MARGIN_CALL
        if len(others) >= self.rules.max_live_orders:
            return Reason.TOO_MANY
        before = list(self.position)
        for other in others:
            before[other.instrument] = before[other.instrument] + other.side * other.left
        projected = list(before)
        k = order.instrument
        projected[k] = projected[k] + order.side * order.quantity
        if not self.instruments[k].short_allowed and order.side < 0 and projected[k] < -DUST * order.quantity:
            return Reason.SHORT
        if self.margin_is_on and abs(projected[k]) > abs(before[k]):
            allowed = self.rules.max_leverage * self.equity * (1 + MARGIN)
            if self._gross(projected) > allowed:
                return Reason.MARGIN
        return Reason.NONE

    # Section 5: a step

    def step(self, bars: Sequence[Bar | None]) -> Step:
        if len(bars) != len(self.instruments) or all(bar is None for bar in bars):
            raise ValueError(f"bars: expected one or None for each of {len(self.instruments)} instruments, received {bars}")
        present = {k: bar for k, bar in enumerate(bars) if bar is not None}
        matching = _Matching(self, present)
        for k, bar in present.items():
            self.price[k] = bar.open
        matching.run(Phase.OPEN)
        matching.run(Phase.WITHIN)
        for k, bar in present.items():
            self.price[k] = bar.close
        matching.run(Phase.CLOSE)
        self._age(present)
        self._pay_borrow(present)
        reward = self._mark()
        self._call_margin()
        return Step(matching.fills, self.marked_equity, reward)

    def _age(self, present: dict[int, Bar]) -> None:
        for order in self.live():
            if order.instrument in present:
                order.bars_seen += 1
                if order.good_for is not None and order.bars_seen >= order.good_for:
                    order.become(State.EXPIRED)

    def _pay_borrow(self, present: dict[int, Bar]) -> None:
        for k, bar in present.items():
            if self.position[k] < 0:
                cost = self.instruments[k].borrow_fraction * abs(self.position[k]) * bar.close
                self.cash = self.cash - cost
                self.borrow = self.borrow + cost

    def _mark(self) -> float:
        floor = self.rules.equity_floor_fraction * self.rules.initial_cash
        equity = self.equity
        reward = self.rules.reward_scale * math.log(max(equity, floor) / max(self.marked_equity, floor))
        self.marked_equity = equity
        return reward

    # Section 7: margin call

    def _call_margin(self) -> None:
        if self.call:
            self.call = any(self.position)
        elif self.margin_is_on and self.gross > 0 and self.marked_equity < self.rules.maintenance_fraction * self.gross:
            self.call = True
            for order in self.live():
                order.become(State.CANCELLED, Reason.MARGIN_CALL)
            for k, position in enumerate(self.position):
                if position != 0:
                    self._force_closed(k, position)

    def _force_closed(self, k: int, position: float) -> None:
        order = Order(
            number=len(self.orders),
            instrument=k,
            kind=Kind.MARKET,
            side=-1 if position > 0 else 1,
            quantity=abs(position),
            price=None,
            good_for=None,
            forced=True,
        )
        self.orders.append(order)
        self._accept(order)


class _Matching:
    """The fills of one step (section 6)."""

    def __init__(self, account: Account, bars: dict[int, Bar]) -> None:
        self.account = account
        self.bars = bars
        self.used = dict.fromkeys(bars, 0.0)
        self.matched: set[int] = set()
        self.fills: list[Fill] = []

    def run(self, phase: Phase) -> None:
        for order, reference in self._met(phase):
            self.matched.add(order.number)
            self._match(order, phase, reference)

    def _met(self, phase: Phase) -> Iterator[tuple[Order, float]]:
        for order in self.account.live():
            bar = self.bars.get(order.instrument)
            if bar is not None and order.number not in self.matched:
                reference = order.reference(phase, bar, self.account.instruments[order.instrument].spread_fraction)
                if reference is not None:
                    yield order, reference

    def _match(self, order: Order, phase: Phase, reference: float) -> None:
        self.account.price[order.instrument] = reference
        if order.kind is Kind.STOP:
            order.triggered = True
        price = self._fill_price(order, reference)
        wanted = self._bounded_by_volume(order)
        if wanted == 0:
            return
        quantity, cut = (wanted, Reason.NONE) if order.forced else self._cut(order, wanted, reference, price)
        if quantity > 0:
            self._fill(order, phase, quantity, reference, price)
        if cut is not Reason.NONE and order.is_live:
            order.become(State.CANCELLED, cut)

    def _fill_price(self, order: Order, reference: float) -> float:
        terms = self.account.instruments[order.instrument]
        bar = self.bars[order.instrument]
        slip = reference * (terms.spread_fraction / 2 + terms.slippage_fraction)
        price = up(reference + slip, terms.tick) if order.side > 0 else down(reference - slip, terms.tick)
        if order.kind is not Kind.LIMIT or order.price is None:
            return price
        factor = order.traded_side(terms.spread_fraction)
        return min(order.price, bar.high * factor, price) if order.side > 0 else max(order.price, bar.low * factor, price)

    def _bounded_by_volume(self, order: Order) -> float:
        terms = self.account.instruments[order.instrument]
        if terms.volume_fraction == math.inf:
            return order.left
        cap = terms.volume_fraction * self.bars[order.instrument].volume
        rest = cap - self.used[order.instrument]
        if rest <= DUST * cap:
            rest = 0.0
        return order.left if order.left <= rest else down(rest, terms.lot)

    def _cut(self, order: Order, wanted: float, reference: float, price: float) -> tuple[float, Reason]:
        """Return what of `wanted` may be filled, and why it is not all."""
        account = self.account
        terms = account.instruments[order.instrument]
        position = account.position[order.instrument]
        closing = _closing(order.side, wanted, position)
        opening = wanted - closing
        if opening <= DUST * wanted:
            return wanted, Reason.NONE
        if order.side < 0 and not terms.short_allowed:
            return down(closing, terms.lot), Reason.SHORT
        if not account.margin_is_on:
            return wanted, Reason.NONE
        fit = self._fit(order, closing, reference, price)
        if opening <= fit * (1 + FIT):
            return wanted, Reason.NONE
        if fit <= LEAST * opening:
            fit = 0.0
        return down(closing + fit, terms.lot), Reason.MARGIN

    def _fit(self, order: Order, closing: float, reference: float, price: float) -> float:
        """Return how much may be opened until the gross exposure is `max_leverage` times the equity (section 6.4)."""
        account = self.account
        k = order.instrument
        terms = account.instruments[k]
        leverage = account.rules.max_leverage
        others = 0.0
        for j, position in enumerate(account.position):
            if j != k:
                others = others + abs(position) * account.price[j]
        kept = abs(account.position[k]) if closing == 0 else 0.0
        slip = abs(price - reference)
        minimum = terms.fee_minimum - order.fee_paid
        fee = (
            terms.fee_fixed
            + terms.fee_per_unit * (order.filled + closing)
            + terms.fee_fraction * (order.notional + closing * price)
            - order.fee_paid
        )
        held = others + kept * reference
        equity = account.equity
        by_minimum = (leverage * (equity - closing * slip - minimum) - held) / (reference + leverage * slip)
        by_fee = (leverage * (equity - closing * slip - fee) - held) / (
            reference + leverage * slip + leverage * (terms.fee_per_unit + terms.fee_fraction * price)
        )
        return max(0.0, min(by_minimum, by_fee))

    def _fill(self, order: Order, phase: Phase, quantity: float, reference: float, price: float) -> None:
        account = self.account
        terms = account.instruments[order.instrument]
        due = max(
            terms.fee_minimum,
            terms.fee_fixed + terms.fee_per_unit * (order.filled + quantity) + terms.fee_fraction * (order.notional + quantity * price),
        )
        fee = due - order.fee_paid
        account.cash = account.cash - (order.side * quantity * price + fee)
        order.filled = order.filled + quantity
        order.notional = order.notional + quantity * price
        order.fee_paid = due
        order.left = order.left - quantity
        if order.left <= DUST * order.quantity:
            order.left = 0.0
        order.become(State.FILLED if order.left == 0 else State.PARTLY_FILLED)
        self.used[order.instrument] = self.used[order.instrument] + quantity
        account.fees = account.fees + fee
        account.slippage = account.slippage + quantity * abs(price - reference)
        account.turnover = account.turnover + quantity * price
        account.n_fills += 1
        self._move(order, quantity, price)
        self.fills.append(Fill(order.number, order.instrument, order.side, quantity, phase, reference, price, fee))

    def _move(self, order: Order, quantity: float, price: float) -> None:
        account = self.account
        k = order.instrument
        old = account.position[k]
        average = account.average[k]
        closing = _closing(order.side, quantity, old)
        new = old + order.side * quantity
        if abs(new) <= DUST * max(abs(old), quantity):
            new = 0.0
        if closing > 0:
            account.realised = account.realised + closing * (price - average) * math.copysign(1.0, old)
        if new == 0:
            account.average[k] = 0.0
        elif closing == 0:
            account.average[k] = (abs(old) * average + quantity * price) / (abs(old) + quantity)
        elif new * old < 0:
            account.average[k] = price
        account.position[k] = new


def _closing(side: int, quantity: float, position: float) -> float:
    return min(quantity, abs(position)) if side * position < 0 else 0.0
