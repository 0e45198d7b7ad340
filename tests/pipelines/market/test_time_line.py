"""Several symbols on one line of time: each price is the newest there was, stale ones are marked, and none comes from the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserver.pipelines.market.bars import Bars
from policyserver.pipelines.market.time_line import RecordedSymbol, TimeLine
from policyserver.pipelines.market.windows import begins_of


def symbol_of(times: list[int], seed: int) -> RecordedSymbol:
    rng = np.random.default_rng(seed)
    columns = [rng.uniform(1, 2, len(times)) for _ in range(5)]
    return RecordedSymbol.of(Bars(np.array(sorted(times), dtype=np.int64), *columns), {"news": rng.normal(size=len(times))}, ("news",))


minutes = st.sets(st.integers(0, 40), min_size=12, max_size=40)


@pytest.mark.long
@given(st.lists(minutes, min_size=2, max_size=4))
def test_at_each_time_every_symbol_has_its_newest_bar_or_its_last_close(times: list[set[int]]) -> None:
    recorded = {f"S{place}": symbol_of(sorted(each), place) for place, each in enumerate(times)}
    line = TimeLine.of(tuple(recorded), recorded)
    first, last = max(min(each) for each in times), min(max(each) for each in times)
    assert line.time_ns.tolist() == [time for time in range(41) if any(time in each for each in times) and first <= time <= last]
    assert line.own_rows is not None
    for row, now in enumerate(line.time_ns.tolist()):
        for place, one in enumerate(recorded.values()):
            own = max(i for i, time in enumerate(one.bars.time_ns.tolist()) if time <= now)
            assert line.own_rows[row, place] == own
            is_new = one.bars.time_ns[own] == now
            assert line.present is None or line.present[row, place] == is_new
            expected = one.columns[own].tolist()
            if not is_new:
                expected[:5] = [expected[3]] * 4 + [0.0]
            assert line.columns[row, place].tolist() == expected


@pytest.mark.long
@given(st.lists(minutes, min_size=2, max_size=4), st.booleans())
def test_a_bar_covers_what_lies_in_it_and_a_price_is_as_old_as_there_were_bars(times: list[set[int]], until_the_last: bool) -> None:
    recorded = {f"S{place}": symbol_of(sorted(each), place) for place, each in enumerate(times)}
    if until_the_last:
        recorded = {name: replace(each, begins_ns=np.append(-1, each.bars.time_ns[:-1])) for name, each in recorded.items()}
    line = TimeLine.of(tuple(recorded), recorded)
    if line.present is None:
        assert line.covers is line.stale_bars is None
        return
    assert line.stale_bars is not None
    for place, one in enumerate(recorded.values()):
        begins, last = one.begins_ns.tolist(), 0
        for row, now in enumerate(line.time_ns.tolist()):
            last = row if line.present[row, place] else last
            assert line.stale_bars[row, place] == row - last
            begin = next(begin for begin, end in zip(begins, one.bars.time_ns.tolist(), strict=True) if end >= now)
            covered = sum(begin < time <= now for time in line.time_ns.tolist())
            assert (int(line.present[row, place]) if line.covers is None else line.covers[row, place]) == covered


def test_bars_begin_their_length_before_their_end_or_where_the_bar_before_ended() -> None:
    ends = np.array([10, 20, 30, 70, 80, 90, 95, 105], dtype=np.int64)
    assert begins_of(ends).tolist() == [0, 10, 20, 60, 70, 80, 90, 95]
    of_trades = np.array([10, 11, 17, 18, 40, 52, 80], dtype=np.int64)
    assert begins_of(of_trades).tolist() == [9, 10, 11, 17, 18, 40, 52]
    of_four_hours = np.array([240, 390, 1680, 1830, 3120, 3270], dtype=np.int64)  # of a day of six and a half
    assert begins_of(of_four_hours).tolist() == [90, 240, 390, 1680, 1830, 3120]


def test_nothing_is_to_be_waited_for_where_no_bar_lies_in_anothers() -> None:
    """Minutes of which one symbol lacks some, and other hours: the usual cases, which are played as if all bars were of one length."""
    rng = np.random.default_rng(0)
    some = sorted({0, 1, 2, 3, 199, *(rng.random(200) < 0.8).nonzero()[0].tolist()})
    recorded = {"A": symbol_of(list(range(200)), 0), "B": symbol_of(some, 1)}
    line = TimeLine.of(("A", "B"), recorded)
    assert line.present is not None
    assert line.covers is None


def test_symbols_that_have_their_bars_together_need_no_marks() -> None:
    recorded = {"A": symbol_of(list(range(9)), 0), "B": symbol_of(list(range(3, 12)), 1)}
    line = TimeLine.of(("A", "B"), recorded)
    assert (line.time_ns.tolist(), line.present, line.interval_ns) == (list(range(3, 9)), None, 1)


def test_symbols_without_common_times_are_refused() -> None:
    recorded = {"A": symbol_of([1, 2, 3], 0), "B": symbol_of([7, 8, 9], 1)}
    with pytest.raises(ValueError, match="symbols_per_episode: expected symbols with bars at one time, received A 1970-01-01T00:00:00 to"):
        TimeLine.of(("A", "B"), recorded)
