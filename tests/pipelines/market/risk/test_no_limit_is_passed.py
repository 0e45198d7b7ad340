"""No row passes a limit by its own orders, whatever it orders, on whatever bars; its books balance; and each planted fault is found."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import BarRows
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.execution.order_table import FORCED, KIND, LIVE, NUMBER, REDUCE_ONLY, SYMBOL
from policyserver.pipelines.market.orders import OrderKind, OrderRequests
from policyserver.pipelines.market.risk.day_loss import DayLoss
from policyserver.pipelines.market.risk.exposure import GrossExposure, MaxPosition, NetExposure
from policyserver.pipelines.market.risk.gate import RiskGate
from policyserver.pipelines.market.risk.hours import DAYS, AllowedHours
from policyserver.pipelines.market.risk.order_rate import OrderRate
from policyserver.pipelines.market.risk.price_band import PriceBand
from policyserver.pipelines.market.rows import ALL
from policyserver.pipelines.market.rules import Rules, RulesConfig
from tests.pipelines.market.oracle.terms import down
from tests.pipelines.market.price_paths import SYMBOLS, begun, episode_of
from tests.pipelines.market.test_against_the_oracle import random_bar, random_market, random_requests

ROWS, STEPS, BAR_NS = 6, 25, 47 * 60 * 10**9
_TOLERANCE = 1e-8

fractions = st.floats(0.05, 3.0)
some_symbols = st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=3, unique=True)
hours = st.sampled_from([["08:00-17:30"], ["22:00-03:00"], ["00:00-06:00", "12:00-24:00"]])
LIMITS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "max_position": st.fixed_dictionaries({"units": st.floats(1.0, 500.0)}, optional={"fraction": fractions, "symbols": some_symbols}),
    "gross_exposure": st.fixed_dictionaries({"fraction": fractions}),
    "net_exposure": st.fixed_dictionaries({"fraction": fractions}),
    "group_exposure": st.fixed_dictionaries(
        {"group": st.just("g"), "symbols": some_symbols, "fraction": fractions, "measure": st.sampled_from(["gross", "net"])}
    ),
    "order_rate": st.fixed_dictionaries({"orders": st.integers(1, 6), "bars": st.integers(1, 8), "exempts_reducing": st.just(False)}),
    "day_loss": st.fixed_dictionaries({"fraction": st.floats(0.01, 0.3), "time_zone": st.sampled_from(["UTC", "-05:00"])}),
    "price_band": st.fixed_dictionaries({"fraction": st.floats(0.005, 0.1), "exempts_reducing": st.booleans()}),
    "allowed_hours": st.fixed_dictionaries({"hours": hours, "time_zone": st.just("+02:00"), "exempts_reducing": st.just(False)}),
}


def named(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of a limit."""
    return LIMITS[name].map(lambda table: {"name": name, **table})


limits = st.sets(st.sampled_from(sorted(LIMITS)), min_size=1, max_size=4).flatmap(
    lambda names: st.tuples(*(named(name) for name in sorted(names)))
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(limits, st.integers(0, 2**32))
def test_no_row_passes_a_limit_by_its_own_orders(chosen: tuple[dict[str, Any], ...], seed: int) -> None:
    Watched(chosen, seed).play()


class Watched:
    """Rows that order at random, each watched by plain numbers apart from the limits' own code."""

    def __init__(self, chosen: tuple[dict[str, Any], ...], seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        market = random_market(rng)
        rules = RulesConfig(
            actions="target_weight", observers=("position",), risk=chosen, instrument=market.instruments[0], account=market.account, ends=()
        )
        self.start = np.round(np.exp(rng.uniform(2, 5, len(SYMBOLS))), 2)
        episodes = [episode_of(np.tile(self.start, (STEPS + 5, 1)), warmup_bars=2, number=row) for row in range(ROWS)]
        self.block: EpisodeBlock = begun(episodes, Rules.of(rules))[0]
        self.accounts = self.block.view.accounts
        self.limits = {each["name"]: each for each in chosen}
        self.lot = market.instruments[0].lot
        self.ticks = np.full(len(SYMBOLS), market.instruments[0].tick)
        self.times = [int(self.block.view.bar.time_ns[0])]
        self.given: list[list[int]] = [[] for _ in range(ROWS)]
        self.days = [(self._day(self.times[0]), 10_000.0, False)] * ROWS
        self.costs = np.zeros(ROWS)
        self.bar: BarRows | None = None
        self.closes = self.accounts.price.copy()
        self.before = self.accounts.price.copy()

    def play(self) -> None:
        for _ in range(STEPS):
            for _ in range(int(self.rng.integers(0, 4))):
                self._order()
            self._bar()

    # What is done ------------------------------------------------------------------------------------------------------------------------

    def _order(self) -> None:
        rows = np.flatnonzero(self.rng.random(ROWS) < 0.6)
        requests = random_requests(self.rng, rows, self.accounts, len(SYMBOLS))
        numbers = self.accounts.orders[rows].copy()
        if self.rng.random() < 0.2 and len(rows):
            replaced = np.array([self.rng.integers(0, max(1, number)) for number in numbers])
            kinds = {int(row): self._live(int(row), int(number)) for row, number in zip(rows, replaced, strict=True)}
            found, accepted = self.block.replace(requests, replaced)
            for place, row in enumerate(rows.tolist()):
                kind = kinds[row]
                assert found[place] == (kind is not None)
                if accepted[place] and kind is not None:
                    self._check_order(requests, place, *kind)
            return
        accepted = self.block.submit(requests)
        assert (self.accounts.orders[rows] == numbers + 1).all(), "a refused order has a number, too"
        for place in np.flatnonzero(accepted).tolist():
            reduces = requests.reduce_only is not None and bool(requests.reduce_only[place])
            self._check_order(requests, place, int(requests.symbol[place]), int(requests.kind[place]), reduces)

    def _live(self, row: int, number: int) -> tuple[int, int, bool] | None:
        """Return a live order's symbol and kind, and whether it only reduces."""
        for order in self.block.broker.table.orders[row]:
            if order[NUMBER] == number and order[LIVE] > 0 and order[FORCED] == 0:
                return int(order[SYMBOL]), int(order[KIND]), bool(order[REDUCE_ONLY])
        return None

    def _bar(self) -> None:
        present = self.rng.random((ROWS, len(SYMBOLS))) < 0.9
        present[~present.any(axis=1), 0] = True
        bar = random_bar(self.rng, self.accounts.price, self.ticks)
        self.times.append(self.times[-1] + BAR_NS)
        self.bar = BarRows.of(np.full(ROWS, self.times[-1]), bar.open, bar.high, bar.low, bar.close, bar.volume)
        self.before, self.closes = self.closes, np.where(present, bar.close, self.closes)
        self.present = present
        with checked(self):
            self.block.fill(ALL, self.bar, present)
        self.block.mark(ALL)
        accounts = self.accounts
        for row in range(ROWS):
            worth = accounts.cash[row] + math.fsum(accounts.position[row] * accounts.price[row])
            assert accounts.equity[row] == pytest.approx(worth, rel=1e-9, abs=1e-6)
        assert (accounts.costs >= self.costs - 1e-9).all()
        self.costs = accounts.costs.copy()
        for row in range(ROWS):
            self.days[row] = self._next_day(row)

    # What is never so --------------------------------------------------------------------------------------------------------------------

    def _check_order(self, requests: OrderRequests, place: int, symbol: int, kind: int, reduces: bool) -> None:
        """An order that the broker has may have been given."""
        row, now = int(requests.rows[place]), len(self.times) - 1
        self.given[row].append(now)
        held, asked = self.accounts.position[row, symbol], float(requests.quantity[place])
        quantity = math.copysign(down(abs(asked), self.lot), asked)
        opens = not reduces and (held * quantity >= 0 or abs(quantity) > abs(held) * (1 + 1e-9))
        if limit := self.limits.get("order_rate"):
            assert sum(bar > now - limit["bars"] for bar in self.given[row]) <= limit["orders"]
        if limit := self.limits.get("allowed_hours"):
            assert _is_open(self.times[-1], limit["hours"])
        if self.limits.get("day_loss"):
            assert not opens or not self.days[row][2]
        if (limit := self.limits.get("price_band")) and (opens or not limit["exempts_reducing"]):
            price, width = self.accounts.price[row, symbol], limit["fraction"]
            if kind in (OrderKind.LIMIT, OrderKind.STOP):
                tick = self.ticks[symbol]
                assert abs(requests.price[place] - price) <= width * price + tick + 1e-9
            elif self.bar is not None and self.present[row, symbol]:
                middle = self.before[row, symbol]
                assert self.bar.high[row, symbol] <= middle * (1 + width) + 1e-9
                assert self.bar.low[row, symbol] >= middle * (1 - width) - 1e-9

    def check_fill(self, row: int, symbol: int, side: float, held: float) -> None:
        """A fill that opens leaves every exposure within its limit, at its own price, with its costs paid."""
        position, price = self.accounts.position[row], self.accounts.price[row]
        if position[symbol] * side <= 0 or abs(position[symbol]) <= abs(held) * (held * side > 0):
            return
        equity = self.accounts.equity[row]
        values = dict(zip(SYMBOLS, (position * price).tolist(), strict=True))
        name, slack = SYMBOLS[symbol], _TOLERANCE * 10_000
        if (limit := self.limits.get("max_position")) and name in limit.get("symbols", SYMBOLS):
            assert abs(position[symbol]) <= limit["units"] * (1 + _TOLERANCE)
            assert abs(values[name]) <= limit.get("fraction", math.inf) * equity + slack
        if limit := self.limits.get("gross_exposure"):
            assert sum(abs(value) for value in values.values()) <= limit["fraction"] * equity + slack
        if limit := self.limits.get("net_exposure"):
            assert side * sum(values.values()) <= limit["fraction"] * equity + slack
        if (limit := self.limits.get("group_exposure")) and name in limit["symbols"]:
            group = [values[each] for each in limit["symbols"]]
            exposure = sum(abs(value) for value in group) if limit["measure"] == "gross" else side * sum(group)
            assert exposure <= limit["fraction"] * equity + slack
        if self.limits.get("day_loss"):
            assert not self.days[row][2], "opened on a lost day"

    def _day(self, time_ns: int) -> int:
        zone = self.limits.get("day_loss", {}).get("time_zone")
        return (time_ns - 1 - (5 * 3600 * 10**9 if zone == "-05:00" else 0)) // (86_400 * 10**9)

    def _next_day(self, row: int) -> tuple[int, float, bool]:
        day, begun_with, lost = self.days[row]
        equity, today = float(self.accounts.equity[row]), self._day(self.times[-1])
        if today != day:
            begun_with, lost = self.last_equity[row], False
        fraction = self.limits.get("day_loss", {}).get("fraction", 1.0)
        self.last_equity[row] = equity
        return today, begun_with, lost or equity <= (1 - fraction) * begun_with

    @property
    def last_equity(self) -> dict[int, float]:
        if not hasattr(self, "_last_equity"):
            self._last_equity = dict.fromkeys(range(ROWS), 10_000.0)
        return self._last_equity


def _is_open(time_ns: int, spans: list[str]) -> bool:
    local = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000) + timedelta(hours=2)
    for span in spans:
        begin, end = span.split("-")
        clock = local.strftime("%H:%M")
        if begin < end:
            inside, day = begin <= clock < end, local
        else:
            inside, day = clock >= begin or clock < end, local if clock >= begin else local - timedelta(days=1)
        if inside and DAYS[day.weekday()] in DAYS[:5]:
            return True
    return False


class checked:
    """Have each booking checked."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        trade, watched = Accounts.trade, self._watched

        def booked(self: Accounts, rows: Any, symbol: Any, quantity: Any, *rest: Any) -> None:
            held = self.position[rows, symbol].copy()
            trade(self, rows, symbol, quantity, *rest)
            for place, row in enumerate(rows.tolist()):
                watched.check_fill(row, int(symbol[place]), math.copysign(1.0, quantity[place]), float(held[place]))

        self._patch.setattr(Accounts, "trade", booked)

    def __exit__(self, *error: object) -> None:
        self._patch.undo()


# Planted faults ----------------------------------------------------------------------------------------------------------------------

Fault = tuple[type, str, Callable[..., Any], dict[str, Any]]


def _unbounded(self: Any, state: Any, view: Any, opening: Any) -> Any:
    return np.full(len(opening.rows), math.inf)


def _lets_all_through(self: Any, state: Any, view: Any, orders: Any) -> Any:
    return np.zeros(len(orders.rows), dtype=np.bool_)


def _without_costs(self: Any, state: Any, view: Any, opening: Any) -> Any:
    others = np.abs(view.accounts.position[opening.rows] * view.accounts.price[opening.rows])
    others[np.arange(len(opening.rows)), opening.symbol] = 0.0
    allowed = self.fraction * view.accounts.equity[opening.rows]
    return np.maximum(allowed - others.sum(axis=1) - opening.held * opening.reference, 0.0) / opening.reference


def _forgives(self: Any, state: Any, view: Any, rows: Any) -> None:
    _day_loss_update(self, state, view, rows)
    state.is_lost[rows] = view.accounts.equity[rows] <= (1 - self.fraction) * state.begun_with[rows]


_day_loss_update = DayLoss.update

FAULTS: dict[str, Fault] = {
    "units are not bounded at the fill": (MaxPosition, "room", _unbounded, {"name": "max_position", "units": 300.0}),
    "a gap carries beyond": (GrossExposure, "room", _unbounded, {"name": "gross_exposure", "fraction": 0.5}),
    "costs are left out": (GrossExposure, "room", _without_costs, {"name": "gross_exposure", "fraction": 0.5}),
    "the net exposure is not bounded": (NetExposure, "room", _unbounded, {"name": "net_exposure", "fraction": 0.3}),
    "orders are not counted": (
        OrderRate,
        "passed",
        lambda *_: None,
        {"name": "order_rate", "orders": 1, "bars": 5},
    ),
    "a window never moves on": (OrderRate, "refuses", _lets_all_through, {"name": "order_rate", "orders": 1, "bars": 5}),
    "a lost day is forgiven": (DayLoss, "update", _forgives, {"name": "day_loss", "fraction": 0.02, "time_zone": "UTC"}),
    "live orders open on a lost day": (DayLoss, "room", _unbounded, {"name": "day_loss", "fraction": 0.01, "time_zone": "UTC"}),
    "the band is not looked at": (
        PriceBand,
        "refuses",
        _lets_all_through,
        {"name": "price_band", "fraction": 0.01, "exempts_reducing": False},
    ),
    "hours are not looked at": (AllowedHours, "refuses", _lets_all_through, {"name": "allowed_hours", "hours": ["08:00-17:30"]}),
    "the gate is open": (
        RiskGate,
        "_passes",
        lambda self, requests, replaced: np.ones(len(requests.rows), dtype=np.bool_),
        {"name": "order_rate", "orders": 1, "bars": 5},
    ),
}


@pytest.fixture(params=FAULTS)
def planted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    owner, name, function, limit = FAULTS[request.param]
    monkeypatch.setattr(owner, name, function)
    return {"exempts_reducing": False, **limit} if limit["name"] in ("order_rate", "allowed_hours") else limit


@pytest.mark.long
def test_a_planted_fault_is_found(planted: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        play_many(planted)


def play_many(limit: dict[str, Any]) -> None:
    for seed in range(30):
        Watched((limit,), seed).play()
