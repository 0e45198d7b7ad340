"""What each limit makes of a crash, a gap, a spike, a halt, a bar without volume and a ruin in one bar.

Before the bar a row has half of its equity in the market and an order for as much again but a fifth, which has been accepted. Asserted are
what of it fills, whether more may be opened at the bar's close, and whether a part of the position may be closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policyserver.pipelines.market.instruments import InstrumentConfig
from tests.pipelines.market.risk.traded import Traded

LIMITS: dict[str, dict[str, Any]] = {
    "units": {"name": "max_position", "units": 90.0},
    "fraction": {"name": "max_position", "fraction": 1.0},
    "gross": {"name": "gross_exposure", "fraction": 1.0},
    "net": {"name": "net_exposure", "fraction": 1.0},
    "group": {"name": "group_exposure", "group": "all", "symbols": ["price"], "fraction": 1.0},
    "rate": {"name": "order_rate", "orders": 3, "bars": 10},
    "day_loss": {"name": "day_loss", "fraction": 0.2},
    "band": {"name": "price_band", "fraction": 0.1},
    "hours": {"name": "allowed_hours", "hours": ["00:00-06:00"], "days": ["thu"], "time_zone": "UTC"},
}
EXPOSURES = {"fraction", "gross", "net", "group"}

Bar = Callable[[Traded], None]

CASES: dict[str, tuple[float, Bar, float, set[str]]] = {
    "crash": (1.0, lambda traded: traded.bar(50.0, low=45.0), 90.0, {"day_loss", "band"}),
    "gap": (1.0, lambda traded: traded.bar(200.0, opens=200.0), 90.0, {*EXPOSURES, "band"}),
    "gap_down": (1.0, lambda traded: traded.bar(60.0, opens=60.0), 90.0, {"day_loss", "band"}),
    "spike": (1.0, lambda traded: traded.bar(100.0, high=300.0, low=20.0), 90.0, {"band"}),
    "halt": (1.0, lambda traded: traded.bar(1.0, present=[False], minutes=600), 50.0, {"hours"}),
    "no_volume": (1.0, lambda traded: traded.bar(100.0, volume=0.0), 50.0, set()),
    "ruin": (-1.0, lambda traded: traded.bar(300.0, high=400.0), 90.0, {*EXPOSURES, "day_loss", "band"}),
}
"""Side of the position, the bar, the units held after it, and the limits that let nothing be opened then."""


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("case", CASES)
def test_a_limit_holds(case: str, limit: str) -> None:
    side, bar, held, closed = CASES[case]
    traded = Traded(LIMITS[limit], instrument=InstrumentConfig(fee_fraction=0.0, slippage_fraction=0.0, volume_fraction=0.5))
    assert traded.order(side * 50.0)
    traded.bar(100.0)
    assert traded.order(side * 40.0)
    bar(traded)
    is_cut = case == "gap" and limit in EXPOSURES
    assert side * traded.position == pytest.approx(75.0 if is_cut else held)
    assert (("cancelled", traded.block.rules.reasons[-1]) in traded.told()) is is_cut
    assert traded.order(side * 1.0) is not (limit in closed or limit == "units")
    reduces = traded.order(-side * 10.0)
    assert reduces is not (limit == "rate" or (limit, case) == ("hours", "halt")), "only a limit on orders as such may refuse it"
    if case == "ruin":
        assert traded.equity < 0


def test_a_ruined_row_can_close_and_nothing_else() -> None:
    traded = Traded(*(LIMITS[name] for name in ("fraction", "gross", "net", "group", "day_loss")))
    traded.order(-100.0)
    traded.bar(250.0)
    assert traded.equity == -5_000.0
    assert not traded.order(-1.0)
    assert not traded.order(101.0)
    assert traded.order(100.0)
    traded.bar(250.0)
    assert traded.position == 0.0
    assert not traded.order(1.0)
    assert not traded.order(-1.0)


def test_an_order_that_waits_through_a_halt_is_judged_again_when_trading_resumes() -> None:
    traded = Traded(LIMITS["gross"])
    traded.order(100.0)
    traded.bar(1.0, present=[False])
    assert traded.position == 0.0
    traded.bar(400.0, opens=400.0)
    assert traded.position == 25.0


def test_a_stop_that_a_crash_triggers_closes_whatever_the_limits_say() -> None:
    from policyserver.pipelines.market.orders import OrderKind

    traded = Traded(*LIMITS.values())
    traded.order(50.0)
    traded.bar(100.0)
    assert traded.order(-50.0, OrderKind.STOP, 95.0)
    traded.bar(40.0, opens=60.0)
    assert traded.position == 0.0
