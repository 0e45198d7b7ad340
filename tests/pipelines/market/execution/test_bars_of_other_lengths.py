"""No order is filled in a bar that had begun when it was given: with bars of other lengths than another symbol's it waits for the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.catalog import Catalog
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED, Fills, OrderKind, OrderRequests
from policyserver.pipelines.market.resample import ResampleConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.schemes.actions.hold_buy_sell_close import Move
from policyserver.pipelines.market.split import Reach
from policyserver.pipelines.market.vector_env import TradingVectorEnv, begin_episodes
from policyserver.pipelines.market.windows import WindowsConfig
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.prices.recorded import RecordedSource
from tests.pipelines.recorded_market import MONDAY_S, minutes, recorded, write_symbol

BUY, SELL, ONE = 1.0, -1.0, np.array([0])
RULES = Rules.of(
    RulesConfig(actions="target_weight", observers=("position", "staleness"), ends=(), account=AccountConfig(max_leverage=9.0))
)


def write_steps(path: Path, ends_s: np.ndarray) -> None:
    """Write bars that open at 101, 102, ... and reach half a unit above and below."""
    rows = [f"{time},{level},{level + 0.5},{level - 0.5},{level},1000" for level, time in enumerate(ends_s.tolist(), 101)]
    path.write_text("\n".join(["time,open,high,low,close,volume", *rows]) + "\n", encoding="utf-8")


def source_of(folder: Path, bars: int = 12) -> RecordedSource:
    """Episodes of A, bars of 10 minutes, and B, bars of half an hour; the first action of the first one is at 01:00."""
    windows = WindowsConfig(order="sequential")
    prices = PricesConfig(recorded=recorded(folder), symbols_per_episode=2, warmup_bars=4, bars_per_episode=bars, windows=windows)
    return RecordedSource(prices, 1, Reach(4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_symbol(tmp_path / "A.csv", minutes(1))
    write_steps(tmp_path / "B.csv", minutes(1, step=30))
    return tmp_path


def begun(source: RecordedSource, rules: Rules = RULES) -> tuple[EpisodeBlock, BarFeed]:
    block, feed = EpisodeBlock(1, source.slots, rules), BarFeed(1, 2)
    begin_episodes(block, feed, ONE, source.episodes([0]))
    return block, feed


def play(block: EpisodeBlock, feed: BarFeed) -> tuple[str, Fills]:
    """Play a bar; return the time of its end, and its fills."""
    fills = block.fill(ONE, feed.next(ONE))
    block.mark(ONE)
    return str(np.datetime64(int(block.view.bar.time_ns[0]), "ns"))[11:16], fills


def order(symbol: int, kind: OrderKind, quantity: float, price: float, good_for: int) -> OrderRequests:
    symbols, kinds, lengths = (np.array([value]) for value in (symbol, int(kind), good_for))
    return OrderRequests(ONE, symbols, kinds, np.array([quantity]), np.array([price]), lengths)


def give(block: EpisodeBlock, kind: OrderKind, quantity: float, price: float = 0.0, good_for: int = GOOD_TILL_CANCELLED) -> None:
    assert block.submit(order(1, kind, quantity, price, good_for)).all()


# What a bar of B opens at is its number from 101: 102 at 00:30, 103 at 01:00, 104 at 01:30.
ORDERS = {
    "market": (OrderKind.MARKET, BUY, 0.0, "02:00", 104.0),
    "on open": (OrderKind.ON_OPEN, BUY, 0.0, "02:00", 104.0),
    "on close": (OrderKind.ON_CLOSE, BUY, 0.0, "02:00", 104.0),
    "limit": (OrderKind.LIMIT, BUY, 103.4, "", 0.0),
    "limit that the next bar reaches": (OrderKind.LIMIT, BUY, 103.6, "02:00", 103.6),
    "take profit": (OrderKind.LIMIT, SELL, 103.2, "02:00", 104.0),
    "stop": (OrderKind.STOP, SELL, 103.2, "", 0.0),
    "stop that the next bar reaches": (OrderKind.STOP, BUY, 104.3, "02:00", 104.3),
}


@pytest.mark.parametrize(("kind", "side", "price", "filled", "reference"), ORDERS.values(), ids=list(ORDERS))
def test_an_order_waits_for_a_bar_that_begins_after_it(
    kind: OrderKind, side: float, price: float, filled: str, reference: float, folder: Path
) -> None:
    block, feed = begun(source_of(folder))
    while play(block, feed)[0] != "01:20":
        pass
    give(block, kind, side, price)
    found = {time: fills.reference_price.tolist() for _ in range(6) for time, fills in [play(block, feed)] if len(fills.rows)}
    assert found == ({filled: [reference]} if filled else {})


def test_an_order_of_before_the_bar_fills_in_it_and_one_that_is_good_for_a_bar_is_not_aged_by_an_earlier_one(folder: Path) -> None:
    block, feed = begun(source_of(folder))
    give(block, OrderKind.MARKET, BUY)  # at 01:00
    play(block, feed)
    give(block, OrderKind.LIMIT, BUY, 104.1, good_for=1)
    times = {time: fills.reference_price.tolist() for _ in range(5) for time, fills in [play(block, feed)] if len(fills.rows)}
    assert times == {"01:30": [103.0], "02:00": [104.0]}


def test_an_order_whose_bar_has_begun_can_not_be_taken_back_by_what_is_known_since(folder: Path) -> None:
    """Else the first prices of B's bar could be had or left, as A moved meanwhile."""
    block, feed = begun(source_of(folder))
    give(block, OrderKind.MARKET, BUY)  # at 01:00, as B's bar begins
    play(block, feed)
    give(block, OrderKind.MARKET, BUY)  # within it
    first, second = np.array([0]), np.array([1])
    assert not block.broker.cancel(ONE, first)
    block.broker.cancel_all(ONE)
    assert not block.broker.cancel(ONE, second), "the other is gone"
    times = {time: fills.reference_price.tolist() for _ in range(5) for time, fills in [play(block, feed)] if len(fills.rows)}
    assert times == {"01:30": [103.0]}
    give(block, OrderKind.MARKET, BUY)
    assert block.broker.cancel(ONE, np.array([2])), "at the end of a bar, the next has not begun"


def test_a_margin_call_closes_at_no_price_of_before_it(folder: Path) -> None:
    """B is short beyond what the account carries as soon as A falls; the call comes within a bar of B."""
    rows = (folder / "A.csv").read_text(encoding="utf-8").splitlines()
    falls = [row if int(row.split(",")[0]) <= MONDAY_S + 5400 else f"{row.split(',')[0]},40,40,40,40,1" for row in rows[1:]]
    (folder / "A.csv").write_text("\n".join([rows[0], *falls]) + "\n", encoding="utf-8")
    rules = Rules.of(
        RulesConfig(
            actions="target_weight", observers=("position",), ends=(), account=AccountConfig(max_leverage=2.0, maintenance_fraction=0.4)
        )
    )
    source = source_of(folder)
    block, feed = EpisodeBlock(1, source.slots, rules), BarFeed(1, 2)
    begin_episodes(block, feed, ONE, source.episodes([0]))
    units = 9_000 / block.view.accounts.price[0]
    for symbol, quantity in ((0, units[0]), (1, -units[1])):
        assert block.submit(order(symbol, OrderKind.MARKET, quantity, 0.0, GOOD_TILL_CANCELLED)).all()
    times = []
    while not block.view.accounts.called[0]:
        times.append(play(block, feed)[0])
    assert times[-1] == "01:40"
    closed = {time: fills.reference_price[fills.symbol == 1].tolist() for _ in range(6) for time, fills in [play(block, feed)]}
    assert {time: prices for time, prices in closed.items() if prices} == {"02:30": [105.0]}


@pytest.mark.parametrize("unit", ["3bars", "25min", "session", "1d"])
def test_longer_bars_begin_with_the_first_that_they_are_made_of(unit: str, folder: Path) -> None:
    """Of a symbol with a pause: what is made of its bars has the opening of one from before the pause, or of the interval before."""
    (folder / "B.csv").unlink()
    write_symbol(folder / "A.csv", minutes(6))
    times = minutes(6)
    pause = (times >= MONDAY_S + 3 * 3600 + 1200) & (times < MONDAY_S + 6 * 3600)
    write_steps(folder / "B.csv", times[~pause])
    catalog = Catalog(recorded(folder, calendar="weekdays", resample=ResampleConfig(unit)))
    longer, every = catalog.load("B"), Catalog(recorded(folder)).load("B")
    first = np.searchsorted(every.bars.open, longer.bars.open)  # each opens at a price of its own
    assert (longer.begins_ns == every.begins_ns[first]).all()
    assert (longer.begins_ns < longer.bars.time_ns).all()


def test_the_first_observation_says_how_old_a_price_is(folder: Path) -> None:
    source = source_of(folder, bars=10)
    env = TradingVectorEnv(source, RULES, 1)
    seen = []
    for number in range(3):
        first, _ = env.reset(options={"first_number": number})
        episode = source.episodes([number])[0]
        seen.append(first[0, -1])
        minute = episode.first_ns // 60_000_000_000 % 30
        assert first[0, -1] == minute // 10, (number, minute)
        if minute != 20:
            observation, *_ = env.step(np.zeros((1, 2), np.float32))
            assert observation[0, -1] == minute // 10 + 1
    assert max(seen) > 0


@pytest.mark.parametrize("weights", [[0.0, 0.4], [0.3, -0.4]])
def test_a_target_that_is_asked_for_again_while_its_order_is_in_a_bar_is_reached_once(weights: list[float], folder: Path) -> None:
    """The order can't be withdrawn, so what is ordered beside it counts it."""
    block, feed = begun(source_of(folder))
    exposures = []
    for _ in range(11):
        block.act(ONE, np.array([weights]))
        play(block, feed)
        exposures.append(block.view.accounts.exposure(ONE)[0, 1])
    reached = weights[1] / 2
    assert exposures[2:] == pytest.approx([reached] * 9, abs=0.02)
    assert exposures[:2] == [0.0, 0.0]


@pytest.mark.parametrize("asks", [1, 6])
def test_a_target_that_changes_while_an_order_is_in_a_bar_is_reached_in_the_next_bar(asks: int, folder: Path) -> None:
    block, feed = begun(source_of(folder))
    block.act(ONE, np.array([[0.0, 0.4]]))  # at 01:00, as B's bar begins
    play(block, feed)
    exposures = []
    for step in range(6):
        if step < asks:
            block.act(ONE, np.array([[0.0, -0.2]]))
        play(block, feed)
        exposures.append(block.view.accounts.exposure(ONE)[0, 1])
    assert exposures == pytest.approx([0.0, 0.2, 0.2, 0.2, -0.1, -0.1], abs=0.02)


def test_positions_that_are_closed_while_an_order_is_in_a_bar_stay_closed(folder: Path) -> None:
    block, feed = begun(source_of(folder))
    block.act(ONE, np.array([[0.3, 0.4]]))
    play(block, feed)
    positions = []
    for step in range(7):
        if step == 0:
            block.close_positions(ONE)
        play(block, feed)
        positions.append(block.view.accounts.position[0] != 0)
    assert np.array(positions).tolist() == [[False, False], [False, True], [False, True], [False, True], *[[False, False]] * 3]


def test_a_close_that_is_asked_for_while_the_purchase_is_in_a_bar_closes_it(folder: Path) -> None:
    rules = Rules.of(RulesConfig(actions="hold_buy_sell_close", observers=("position",), ends=(), account=AccountConfig(max_leverage=9.0)))
    block, feed = begun(source_of(folder), rules)
    block.act(ONE, np.array([[Move.HOLD, Move.BUY]]))  # at 01:00, as B's bar begins
    play(block, feed)
    block.act(ONE, np.array([[Move.HOLD, Move.CLOSE]]))
    held = []
    for _ in range(6):
        play(block, feed)
        held.append(bool(block.view.accounts.position[0, 1]))
    assert held == [False, True, True, True, False, False]
