"""When the policy is asked, and what an action was worth that is kept for several bars.

The policy is asked at the close of some bars alone. In between positions are kept and accounts are marked at each bar; the reward of an
action is the sum of its bars' rewards.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.intervals import parse_interval

BoolArray = npt.NDArray[np.bool_]

EACH_BAR = "each_bar"
ALL_SYMBOLS = "all_symbols"


def check_decide(text: str, key: str) -> None:
    """Check when the policy is asked: at `each_bar`, with `all_symbols`, or every so often.

    Raises:
        ValueError: It says something else; the message begins with `key`.
    """
    if text not in (EACH_BAR, ALL_SYMBOLS):
        try:
            parse_interval(text, key)
        except ValueError as error:
            raise ValueError(f"{key}: expected {EACH_BAR}, {ALL_SYMBOLS}, or a length of time such as 5min, received {text!r}") from error


def asked(
    time_ns: IntArray, present: BoolArray | None, warmup_bars: int, decide: str, deadline_ns: int = 0, skip_frame: int = 1
) -> BoolArray | None:
    """Return at the close of which bars of an episode the policy is asked, bool (t,); none: at each.

    Args:
        time_ns: Ends of the bars, int64 (t,).
        present: Which symbols have a bar, bool (t, K); none: all.
        warmup_bars: Bars up to that of the first action.
        decide: `each_bar`; `all_symbols`: once each symbol has had a bar of its own since the policy was asked before; or a length of time:
            at the first bar that ends at or after each multiple of it, counted from midnight UTC.
        deadline_ns: With `all_symbols`: time since the first of these bars after which the policy is asked all the same; 0: none.
        skip_frame: Of these bars each n-th, from the first action on.
    """
    if decide == EACH_BAR or (decide == ALL_SYMBOLS and present is None):
        if skip_frame == 1:
            return None
        asks = np.ones(len(time_ns), dtype=np.bool_)
    elif decide == ALL_SYMBOLS and present is not None:
        asks = _with_all(time_ns, present, warmup_bars, deadline_ns)
    else:
        asks = np.diff(time_ns // parse_interval(decide, "decide"), prepend=-1) > 0
    first = warmup_bars - 1
    asks[: first + 1] = False
    asks[first] = True
    if skip_frame > 1:
        places = np.flatnonzero(asks)
        asks[:] = False
        asks[places[::skip_frame]] = True
    return asks


def _with_all(time_ns: IntArray, present: BoolArray, warmup_bars: int, deadline_ns: int) -> BoolArray:
    asks = np.zeros(len(time_ns), dtype=np.bool_)
    seen, since_ns = np.zeros(present.shape[1], dtype=np.bool_), 0
    for bar in range(warmup_bars, len(time_ns)):
        if not seen.any():
            since_ns = int(time_ns[bar])
        seen |= present[bar]
        if seen.all() or (deadline_ns and time_ns[bar] - since_ns >= deadline_ns):
            asks[bar] = True
            seen[:] = False
    return asks


class FrameSums:
    """What the actions of n rows have been worth since they were taken: sums over bars of several columns."""

    def __init__(self, n_rows: int, n_columns: int) -> None:
        """Start at 0."""
        self._sums = np.zeros((n_rows, n_columns))

    def begin(self, rows: IntArray) -> None:
        """Forget what rows had: new episodes begin in them."""
        self._sums[rows] = 0.0

    def add(self, rows: IntArray, values: FloatArray) -> None:
        """Add a bar's values, float64 (m, columns)."""
        self._sums[rows] += values

    def take(self, rows: IntArray) -> FloatArray:
        """Return the sums of rows, float64 (m, columns), and start at 0 again."""
        sums = self._sums[rows]
        self._sums[rows] = 0.0
        return sums
