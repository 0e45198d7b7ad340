"""Each limit refuses what would pass it, lets everything else through, and never hinders an order that it is kept by."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from policyserver.common.bounds import bare, bounds_of, bounds_text
from policyserver.common.settings import SettingsError
from policyserver.common.settings_declaration import walk
from policyserver.pipelines.listing import schemes
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.orders import OrderKind, OrderRequests
from policyserver.pipelines.market.risk import LIMITS
from policyserver.pipelines.market.risk.local_time import local_ns
from policyserver.pipelines.market.rules import Rules, RulesConfig
from tests.common.test_setting_bounds import beyond, bounded
from tests.pipelines.market.risk.traded import MINUTE_NS, Traded

NEEDED: dict[str, dict[str, Any]] = {
    "max_position": {"units": 1.0},
    "group_exposure": {"group": "tech", "symbols": ["AAA"]},
}
"""What has to be set of a limit."""


def test_no_limit_is_on_unless_it_is_named() -> None:
    traded = Traded()
    assert traded.order(1e6)
    traded.bar(100.0)
    assert traded.position == 1e6


def test_a_position_in_units() -> None:
    traded = Traded({"name": "max_position", "units": 10.0})
    assert not traded.order(10.1)
    assert not traded.order(-10.1)
    assert traded.order(6.0)
    assert not traded.order(4.1), "live orders count"
    assert traded.order(4.0)
    traded.bar(100.0)
    assert traded.position == 10.0
    assert not traded.order(1e-3)
    assert traded.order(-20.0), "to the same size on the other side"
    traded.bar(100.0)
    assert traded.position == -10.0
    assert traded.told()[:3] == [("rejected", "MaxPosition")] * 3


def test_a_position_as_a_fraction_of_the_equity_is_kept_through_a_gap_with_its_costs() -> None:
    costly = InstrumentConfig(fee_fraction=0.002, fee_minimum=1.0, slippage_fraction=0.001)
    traded = Traded({"name": "max_position", "fraction": 0.5}, instrument=costly)
    assert not traded.order(50.1)
    assert traded.order(50.0)
    traded.bar(120.0, opens=110.0)
    price_of_fill = 110.0
    at_fill = 10_000.0 - traded.block.view.accounts.costs[0]
    assert traded.position * price_of_fill == pytest.approx(0.5 * at_fill, rel=1e-12)
    assert ("cancelled", "MaxPosition") in traded.told()


def test_a_lot_is_rounded_before_it_is_judged() -> None:
    traded = Traded({"name": "max_position", "units": 10.0}, instrument=InstrumentConfig(lot=1.0))
    assert traded.order(10.9)


def test_a_limit_of_some_symbols() -> None:
    traded = Traded({"name": "max_position", "units": 0.0, "symbols": ["BBB"]}, symbols=2)
    assert traded.order(5.0, symbol=0)
    assert not traded.order(5.0, symbol=1)


def test_gross_exposure_lets_one_symbol_take_anothers_place() -> None:
    traded = Traded({"name": "gross_exposure", "fraction": 1.0}, symbols=2)
    assert traded.order(100.0, symbol=0)
    assert not traded.order(1.0, symbol=1)
    traded.bar(100.0)
    assert traded.order(-100.0, symbol=0)
    assert traded.order(-100.0, symbol=1), "a short adds to it as a long does"
    assert not traded.order(-1.0, symbol=1)
    traded.bar(100.0)
    assert traded.positions.tolist() == [0.0, -100.0]


def test_gross_exposure_is_kept_when_the_order_that_was_to_make_room_does_not_fill() -> None:
    thin = InstrumentConfig(fee_fraction=0.0, slippage_fraction=0.0, volume_fraction=0.5)
    traded = Traded({"name": "gross_exposure", "fraction": 1.0}, symbols=2, instrument=thin)
    assert traded.order(100.0, symbol=0)
    traded.bar(100.0)
    assert traded.order(-100.0, symbol=0)
    assert traded.order(100.0, symbol=1)
    traded.bar(100.0, volume=80.0)
    assert traded.positions.tolist() == [60.0, 40.0]
    traded.bar(100.0)
    assert traded.positions.tolist() == [0.0, 100.0]


def test_net_exposure_lets_a_hedge_in_and_out() -> None:
    traded = Traded({"name": "net_exposure", "fraction": 0.1}, symbols=2)
    assert not traded.order(11.0, symbol=0)
    assert traded.order(10.0, symbol=0)
    assert traded.order(-20.0, symbol=1)
    assert traded.order(15.0, symbol=0)
    traded.bar(100.0)
    assert traded.positions.tolist() == [25.0, -20.0]
    assert traded.order(-25.0, symbol=0), "closing a leg passes, although the net exposure grows"
    traded.bar(100.0)
    assert traded.positions.tolist() == [0.0, -20.0]
    assert not traded.order(-1.0, symbol=1)
    assert not traded.order(-1.0, symbol=0)
    assert traded.order(20.0, symbol=1)


@pytest.mark.parametrize(("measure", "short_passes"), [("gross", False), ("net", True)])
def test_a_group_is_limited_and_others_are_not(measure: str, short_passes: bool) -> None:
    limit = {"name": "group_exposure", "group": "tech", "symbols": ["AAA", "BBB"], "fraction": 0.2, "measure": measure}
    traded = Traded(limit, symbols=3)
    assert traded.order(20.0, symbol=0)
    assert not traded.order(1.0, symbol=1)
    assert traded.order(-20.0, symbol=1) is short_passes
    assert traded.order(1000.0, symbol=2)
    traded.bar(100.0)
    assert ("rejected", "GroupExposure tech") in traded.told()


def test_orders_of_a_window() -> None:
    traded = Traded({"name": "order_rate", "orders": 2, "bars": 3})
    accepted = []
    for _ in range(8):
        accepted.append([traded.order(1.0) for _ in range(2)])
        traded.bar(100.0)
    assert [sum(each) for each in accepted] == [2, 0, 0, 2, 0, 0, 2, 0]
    traded.bar(100.0)
    assert traded.order(-1.0)
    assert traded.order(1.0)
    assert not traded.order(-1.0), "an order that reduces, too"


def test_orders_of_a_window_that_exempts_what_reduces() -> None:
    traded = Traded({"name": "order_rate", "orders": 1, "bars": 100, "exempts_reducing": True})
    assert traded.order(5.0)
    traded.bar(100.0)
    assert not traded.order(1.0)
    assert traded.order(-5.0)
    assert not traded.order(-5.0), "with the live one it would turn the position"


def test_what_another_limit_refuses_is_no_order_of_the_window() -> None:
    traded = Traded({"name": "order_rate", "orders": 1, "bars": 100}, {"name": "max_position", "units": 1.0})
    assert not traded.order(2.0)
    assert traded.order(1.0)


def test_a_lost_day_ends_with_the_day() -> None:
    traded = Traded({"name": "day_loss", "fraction": 0.05, "time_zone": "-05:00"})
    traded.order(100.0)
    traded.bar(100.0)
    traded.bar(95.1)
    assert traded.order(1.0)
    assert traded.order(50.0, OrderKind.LIMIT, 90.0)
    traded.bar(95.0)
    assert not traded.order(1.0)
    traded.bar(101.0)
    assert not traded.order(1.0), "whatever is gained back"
    traded.bar(89.0)
    assert traded.position == 101.0, "live orders open nothing, either"
    assert ("cancelled", "DayLoss") in traded.told()
    assert traded.order(-50.0)
    assert not traded.order(-60.0), "more than there is"
    minutes_left = (24 + 5) * 60 - traded.time_ns // MINUTE_NS
    traded.bar(89.0, minutes=int(minutes_left) % 1440)
    assert not traded.order(1.0), "the bar that ends at midnight belongs to the day"
    traded.bar(89.0)
    assert traded.order(1.0)
    traded.bar(80.0)
    assert not traded.order(1.0), "a loss is one from the last close of the day before"


def test_a_price_band() -> None:
    traded = Traded({"name": "price_band", "fraction": 0.05})
    assert traded.order(1.0, OrderKind.LIMIT, 95.0)
    assert not traded.order(1.0, OrderKind.LIMIT, 94.9)
    assert not traded.order(1.0, OrderKind.STOP, 105.1)
    assert traded.order(1.0)
    traded.bar(94.0)
    assert not traded.order(1.0), "the bar left the band"
    assert not traded.order(1.0, OrderKind.ON_CLOSE)
    assert traded.order(1.0, OrderKind.LIMIT, 94.0)
    assert traded.order(-1.0), "what reduces passes"
    traded.bar(94.0)
    assert traded.order(1.0)


def test_a_price_band_that_exempts_nothing() -> None:
    traded = Traded({"name": "price_band", "fraction": 0.05, "exempts_reducing": False})
    traded.order(1.0)
    traded.bar(90.0)
    assert not traded.order(-1.0)


@pytest.mark.parametrize(
    ("local", "allowed"),
    [
        ("2024-07-01 09:29", False),
        ("2024-07-01 09:30", True),
        ("2024-07-01 15:59", True),
        ("2024-07-01 16:00", False),
        ("2024-07-06 12:00", False),
        ("2024-01-02 09:29", False),
        ("2024-01-02 09:30", True),
        ("2024-07-05 22:00", True),
        ("2024-07-06 01:59", True),
        ("2024-07-06 02:00", False),
        ("2024-07-01 01:00", False),
    ],
)
def test_hours_are_those_of_the_zone(local: str, allowed: bool) -> None:
    """In summer and in winter time; the second hours go through midnight, and belong to the day on which they begin."""
    traded = Traded({"name": "allowed_hours", "hours": ["09:30-16:00", "22:00-02:00"], "time_zone": "America/New_York"})
    moment = datetime.fromisoformat(local).replace(tzinfo=ZoneInfo("America/New_York"))
    traded.bar(100.0, minutes=int(moment.timestamp()) // 60 - 2)
    assert traded.order(1.0) is allowed


def test_hours_refuse_what_reduces_unless_it_is_exempt() -> None:
    for exempts in (False, True):
        traded = Traded(
            {"name": "allowed_hours", "hours": ["00:00-00:05"], "days": ["thu"], "time_zone": "UTC", "exempts_reducing": exempts}
        )
        assert traded.order(5.0)
        traded.bar(100.0, minutes=10)
        assert traded.position == 5.0
        assert not traded.order(1.0)
        assert traded.order(-5.0) is exempts


@pytest.mark.long
def test_local_times_are_those_of_zoneinfo() -> None:
    rng = np.random.default_rng(0)
    times = rng.integers(-(2**60), 2**62, 2_000) // MINUTE_NS * MINUTE_NS
    for name in ("UTC", "-05:30", "America/New_York", "Africa/Casablanca", "Australia/Lord_Howe"):
        zone = ZoneInfo(name) if "/" in name else None
        local = local_ns(times, name)
        for time, mine in zip(times.tolist(), local.tolist(), strict=True):
            if zone is not None and time > -2_000_000_000 * 10**9:
                offset = datetime.fromtimestamp(time // 10**9, zone).utcoffset()
                assert offset is not None
                assert (mine - time) // 10**9 == offset.total_seconds()
            elif zone is None:
                assert mine - time == (0 if name == "UTC" else -330 * MINUTE_NS)


# Refusals ----------------------------------------------------------------------------------------------------------------------------


def test_the_first_limit_that_refuses_is_the_reason_and_the_order_has_a_number() -> None:
    traded = Traded({"name": "max_position", "units": 1.0}, {"name": "gross_exposure", "fraction": 0.01})
    assert [traded.order(2.0), traded.order(1.0), traded.order(0.5)] == [False, True, False]
    traded.bar(100.0)
    (events, _) = traded.events
    assert traded.told() == [("rejected", "MaxPosition"), ("rejected", "MaxPosition")]
    assert events.number.tolist() == [0, 2]
    assert events.quantity.tolist() == [2.0, 0.5]
    assert events.in_bar.tolist() == [False, False]
    assert traded.block.view.accounts.orders[0] == 3


def test_refusals_are_observed_until_the_next_action() -> None:
    account = AccountConfig(max_leverage=1.0)
    traded = Traded({"name": "max_position", "units": 1000.0}, account=account, observers=[{"name": "refusals", "limits": 1}])
    row = np.zeros(1, dtype=np.int64)
    traded.order(2000.0)
    traded.order(500.0)
    traded.bar(100.0)
    assert traded.block.observe().tolist() == [[2.0, 1.0]], "one by the limit, one by the broker, which is the margin"
    traded.block.act(row, np.zeros((1, 1), dtype=np.float32))
    assert traded.block.observe().tolist() == [[0.0, 0.0]]
    assert traded.block.rules.names(("price",)) == ("refused", "refused_by_1")


def test_refusals_of_limits_that_are_not_there_are_refused_by_their_key() -> None:
    with pytest.raises(SettingsError, match=r"rules\.observers\[0\]\.limits: expected at most 0"):
        Rules.of(RulesConfig(observers=({"name": "refusals", "limits": 1},)))


@pytest.mark.parametrize(("scheme", "buy"), [("sell_hold_buy", 2), ("target_position", 4)])
def test_an_action_that_was_refused_asks_again(scheme: str, buy: int) -> None:
    closed = {"name": "allowed_hours", "hours": ["00:05-24:00"], "days": ["thu"], "time_zone": "UTC"}
    traded = Traded(closed, actions=scheme)
    row, action = np.zeros(1, dtype=np.int64), np.array([buy])
    traded.block.act(row, action)
    traded.bar(100.0)
    assert traded.position == 0.0
    traded.bar(100.0, minutes=10)
    traded.block.act(row, action)
    traded.bar(100.0)
    assert traded.position == 100.0
    traded.block.act(row, action)
    traded.bar(100.0)
    assert traded.block.view.accounts.fills[0] == 1


def test_a_fallback_that_flattens_passes_the_limits_on_positions() -> None:
    traded = Traded({"name": "max_position", "units": 10.0}, {"name": "gross_exposure", "fraction": 0.05}, {"name": "price_band"})
    traded.order(5.0)
    traded.bar(40.0)
    traded.block.close_positions(np.zeros(1, dtype=np.int64))
    traded.bar(40.0)
    assert traded.position == 0.0


def test_a_margin_call_is_not_asked() -> None:
    account = AccountConfig(max_leverage=2.0, maintenance_fraction=0.4)
    closed = {"name": "allowed_hours", "hours": ["00:00-00:04"], "days": ["thu"], "time_zone": "UTC"}
    traded = Traded(closed, account=account)
    assert traded.order(190.0)
    traded.bar(100.0)
    traded.bar(70.0)
    traded.bar(70.0)
    assert traded.position == 0.0


def test_a_replacement_is_judged_without_the_order_in_whose_place_it_comes() -> None:
    traded = Traded({"name": "max_position", "units": 10.0})
    assert traded.order(10.0, OrderKind.LIMIT, 90.0)
    one = np.zeros(1, dtype=np.int64)
    requests = [OrderRequests(one, one, one, np.array([q]), np.array([95.0]), one + 5) for q in (11.0, 9.0)]
    assert [each.tolist() for each in traded.block.replace(requests[0], one)] == [[True], [False]]
    assert [each.tolist() for each in traded.block.replace(requests[1], one)] == [[True], [True]]
    assert [each.tolist() for each in traded.block.replace(requests[1], one)] == [[False], [False]]
    traded.bar(94.0)
    assert traded.position == 9.0


# Settings ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "cls"), [pytest.param(*each, id=each[0]) for each in LIMITS.classes()])
def test_a_setting_beyond_a_bound_is_refused_by_its_key(name: str, cls: type[Any]) -> None:
    choice = {"name": name} | NEEDED.get(name, {})
    assert LIMITS.make(choice | {"name": f"python:{cls.__module__}.{cls.__name__}"}, "rules.risk[0]") == LIMITS.make(
        choice, "rules.risk[0]"
    )
    for key, field in walk(cls):
        assert field.doc, f"{key} has no docstring"
        hint = bounded(field.hint)
        for bound in bounds_of(hint):
            with pytest.raises(SettingsError) as refused:
                LIMITS.make(choice | {key: beyond(bare(hint), bound)}, "rules.risk[0]")
            assert str(refused.value).startswith(f"rules.risk[0].{key}")
            assert bounds_text(bounds_of(hint)) in str(refused.value)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("max_position", r"rules\.risk\[0\]\.units: expected a number here or in fraction, received none in both"),
        ({"name": "group_exposure", "group": "tech", "symbols": []}, r"rules\.risk\[0\]\.symbols: expected at least one"),
        ({"name": "allowed_hours", "hours": ["9-16"]}, r'hours: expected two different times such as "09:30-16:00", received \'9-16\''),
        ({"name": "allowed_hours", "hours": ["09:00-09:00"]}, "hours: expected two different times"),
        ({"name": "allowed_hours", "hours": []}, "hours: expected at least one"),
        ({"name": "allowed_hours", "days": []}, "days: expected at least one"),
        ({"name": "allowed_hours", "days": ["monday"]}, r"days\[0\]: expected mon\|tue.*received 'monday'"),
        ({"name": "allowed_hours", "time_zone": "Mars"}, "time_zone: expected UTC, an offset"),
        ({"name": "day_loss", "time_zone": "Mars"}, "time_zone: expected UTC, an offset"),
        ("tip", r"rules\.risk\[0\]\.name: expected max_position, .*received 'tip'"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(choice: Any, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        Rules.of(RulesConfig(risk=(choice,)))


@pytest.mark.long
def test_the_limits_are_listed_with_their_settings() -> None:
    listed = schemes()
    assert "rules.risk: a limit on risk by its name" in listed
    for name, cls in LIMITS.classes():
        assert f"  {name}: " in listed
        assert all(f"    {key}" in listed for key, _ in walk(cls))


def test_a_symbol_that_is_not_traded_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"rules\.risk\.symbols: expected names among AAA, BBB, received 'ZZZ'"):
        Traded({"name": "max_position", "units": 1.0, "symbols": ["ZZZ"]}, symbols=2)


def test_actions_beyond_the_equity_need_leverage() -> None:
    choice = {"name": "sell_hold_buy", "unit_fraction": 5.0}
    for leverage, received in ((None, "none"), (1.0, "1"), (4.5, "4.5")):
        expected = rf"rules\.account\.max_leverage: expected at least 5, for actions that ask for 5 times the equity, received {received}$"
        with pytest.raises(SettingsError, match=expected):
            Rules.of(RulesConfig(actions=choice, account=AccountConfig(max_leverage=leverage)))
    assert math.isfinite(Rules.of(RulesConfig(actions=choice, account=AccountConfig(max_leverage=5.0))).actions.largest_exposure())
