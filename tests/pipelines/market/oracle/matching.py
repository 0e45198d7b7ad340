"""The fills of one bar: which orders it meets, at which price, and of how much (README.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.pipelines.market.oracle.orders import Fill, Kind, Order, Phase, Reason, State
from tests.pipelines.market.oracle.terms import DUST, FIT, LEAST, Bar, down, up

if TYPE_CHECKING:
    from tests.pipelines.market.oracle.account import Account


class Matching:
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
            if bar is not None and self.account.is_for(bar, order) and order.number not in self.matched:
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
        if order.reduce_only:
            return down(closing, terms.lot), Reason.REDUCE_ONLY
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
