"""Several symbols on one line of time: each price is the newest there was, stale ones are marked, and none comes from the future."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserver.pipelines.market.bars import Bars
from policyserver.pipelines.market.time_line import RecordedSymbol, TimeLine


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


def test_symbols_that_have_their_bars_together_need_no_marks() -> None:
    recorded = {"A": symbol_of(list(range(9)), 0), "B": symbol_of(list(range(3, 12)), 1)}
    line = TimeLine.of(("A", "B"), recorded)
    assert (line.time_ns.tolist(), line.present, line.interval_ns) == (list(range(3, 9)), None, 1)


def test_symbols_without_common_times_are_refused() -> None:
    recorded = {"A": symbol_of([1, 2, 3], 0), "B": symbol_of([7, 8, 9], 1)}
    with pytest.raises(ValueError, match="symbols_per_episode: expected symbols with bars at one time, received A 1970-01-01T00:00:00 to"):
        TimeLine.of(("A", "B"), recorded)
