"""Random markets and random traders, which run into every rule of README.md again and again.

    rng = random.Random(7)
    account = draw_account(rng)
    for turn in play(rng, account, n_steps=100):   # the account has taken the bars, not yet the commands
        turn.bars, turn.step, turn.commands

All numbers come from `rng`: the same seed gives the same session. Hypothesis' `randoms()` serves as well.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.pipelines.market.oracle.account import Account, Step
from tests.pipelines.market.oracle.orders import Kind
from tests.pipelines.market.oracle.terms import Bar, Instrument, Rules

Bars = list[Bar | None]


@dataclass(frozen=True, slots=True)
class Submit:
    instrument: int
    kind: Kind
    quantity: float
    price: float | None
    good_for: int | None
    reduce_only: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    number: int


@dataclass(frozen=True, slots=True)
class Replace:
    number: int
    quantity: float
    price: float | None
    good_for: int | None


Command = Submit | Cancel | Replace


@dataclass(frozen=True, slots=True)
class Turn:
    """One bar of a session."""

    bars: Bars
    step: Step
    commands: list[Command]
    """Given at the close of the bar; the account takes them when the session goes on."""


def draw_instrument(rng: random.Random) -> Instrument:
    return Instrument(
        tick=rng.choice((0.0, 0.01, 0.05, 0.25)),
        lot=rng.choice((0.0, 0.1, 1.0, 5.0)),
        fee_fixed=rng.choice((0.0, 0.0, 1.0)),
        fee_per_unit=rng.choice((0.0, 0.0, 0.01)),
        fee_fraction=rng.choice((0.0, 0.001)),
        fee_minimum=rng.choice((0.0, 0.0, 2.0)),
        spread_fraction=rng.choice((0.0, 0.0005)),
        slippage_fraction=rng.choice((0.0, 0.0001, 0.01)),
        volume_fraction=rng.choice((math.inf, 0.1, 1.0)),
        borrow_fraction=rng.choice((0.0, 0.0002)),
        short_allowed=rng.random() < 0.7,
    )


def draw_account(rng: random.Random) -> Account:
    n = rng.randint(1, 3)
    leverage = rng.choice((1.0, 1.0, 2.0, 5.0, math.inf))
    maintenance = 0.0 if leverage == math.inf else rng.choice((0.0, 0.5 / leverage, 0.9 / leverage))
    rules = Rules(max_leverage=leverage, maintenance_fraction=maintenance, max_live_orders=rng.randint(n, 6))
    return Account(rules, [draw_instrument(rng) for _ in range(n)], [float(rng.randint(20, 200)) for _ in range(n)])


def play(rng: random.Random, account: Account, n_steps: int) -> Iterator[Turn]:
    for _ in range(n_steps):
        bars = draw_bars(rng, account)
        step = account.step(bars)
        commands = draw_commands(rng, account)
        yield Turn(bars, step, commands)
        for command in commands:
            obey(account, command)


def obey(account: Account, command: Command) -> None:
    match command:
        case Submit():
            account.submit(
                command.instrument, command.kind, command.quantity, command.price, command.good_for, reduce_only=command.reduce_only
            )
        case Cancel():
            account.cancel(command.number)
        case Replace():
            account.replace(command.number, command.quantity, command.price, command.good_for)


def draw_bars(rng: random.Random, account: Account) -> Bars:
    """Draw the bars of a step; now and then one that covers several steps, in which the instrument need not have been without a bar."""
    bars: Bars = [None if rng.random() < 0.1 else draw_bar(rng, price) for price in account.price]
    bars = [replace(bar, steps=rng.randint(2, 4)) if bar is not None and rng.random() < 0.05 else bar for bar in bars]
    if all(bar is None for bar in bars):
        bars[0] = draw_bar(rng, account.price[0])
    return bars


def draw_bar(rng: random.Random, before: float) -> Bar:
    """Draw a bar after a close: most of them calm and on cents, so that limits are touched exactly; some a gap, a spike, a halt."""
    kind = rng.random()
    if kind < 0.05:
        return Bar(before, before, before, before, 0.0)
    size = 0.25 if kind < 0.1 else 0.01
    open_price = before * math.exp(rng.uniform(-size, size)) if kind < 0.3 else before
    close = open_price * math.exp(rng.uniform(-size, size))
    high = max(open_price, close) * (1 + rng.uniform(0, size))
    low = min(open_price, close) * (1 - rng.uniform(0, size))
    if rng.random() < 0.8:
        open_price, close, high, low = (max(round(price, 2), 0.01) for price in (open_price, close, high, low))
    volume = 0.0 if rng.random() < 0.05 else float(rng.randint(1, 3000))
    return Bar(open_price, max(high, open_price, close), min(low, open_price, close), close, volume)


def draw_commands(rng: random.Random, account: Account) -> list[Command]:
    return [draw_command(rng, account) for _ in range(rng.choice((0, 0, 1, 1, 2, 4)))]


def draw_command(rng: random.Random, account: Account) -> Command:
    chance = rng.random()
    live = account.live()
    if account.orders and chance < 0.2:
        # Of the live ones mostly, but now and then of one that is gone.
        order = rng.choice(live) if live and rng.random() < 0.9 else rng.choice(account.orders[-20:])
        if chance < 0.1:
            return Cancel(order.number)
        return Replace(order.number, draw_quantity(rng, account, order.instrument), draw_price(rng, account, order.instrument), None)
    k = rng.randrange(len(account.instruments))
    good_for = rng.choice((None, None, 1, 2, 5))
    return Submit(
        k, rng.choice(list(Kind)), draw_quantity(rng, account, k), draw_price(rng, account, k), good_for, reduce_only=rng.random() < 0.2
    )


def draw_quantity(rng: random.Random, account: Account, k: int) -> float:
    """Draw a signed quantity: parts of the equity, exactly all that is allowed, more than it, exactly the position, and nonsense."""
    kind = rng.random()
    position = account.position[k]
    if kind < 0.25 and position != 0:
        return -position * rng.choice((1.0, 1.0, 0.5, 2.0))
    if kind < 0.27:
        return rng.choice((0.0, math.nan, math.inf, 1e-9))
    leverage = min(account.rules.max_leverage, 3.0)
    share = rng.choice((rng.random(), rng.random(), 1.0, 1.3)) * leverage
    return rng.choice((1, -1)) * share * max(account.marked_equity, 100.0) / account.price[k]


def draw_price(rng: random.Random, account: Account, k: int) -> float:
    price = account.price[k] * (1 + rng.choice((0.0, rng.uniform(-0.02, 0.02), rng.uniform(-0.2, 0.2))))
    if rng.random() < 0.01:
        return rng.choice((0.0, -1.0, math.nan, 1e-6))
    return round(price, 2) if rng.random() < 0.5 else price
