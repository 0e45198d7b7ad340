"""What the parts of an episode have in common: a frozen configuration, a state of its own for each block, and a view of the block.

A part is a frozen dataclass; what changes while it works is in a state that `new_state` makes, one for each block, so that one part serves
any number of blocks. Most parts need none: the view has the newest bars, the accounts and the running statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policyserver.common.settings import Config
from policyserver.pipelines.market.accounts import Accounts
from policyserver.pipelines.market.bars import BarRows, FloatArray, IntArray
from policyserver.pipelines.market.history import BarWindows
from policyserver.pipelines.market.orders import LiveOrders
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.running_statistics import Statistic, Statistics


@dataclass(frozen=True, slots=True)
class Shape:
    """How many episodes a block has, and what each trades."""

    n_rows: int
    """Episodes, n."""
    symbols: tuple[str, ...]
    """What each of them trades, K names."""
    columns: tuple[str, ...] = ()
    """Further columns of the bars, E names; `view.history` has them after its fields."""

    @property
    def n_symbols(self) -> int:
        """K."""
        return len(self.symbols)


@dataclass(slots=True, eq=False)
class View:
    """What the parts of an episode see of a block: everything as of the last bar that has closed, nothing later. To be read alone."""

    shape: Shape
    """Its size."""
    bar: BarRows
    """The last bar of each row, all n of them."""
    clock: IntArray
    """Number of that bar in its episode, int64 (n,): 0 is the bar of the first action."""
    n_steps: IntArray
    """Actions in the whole episode, int64 (n,); the largest number there is where an episode has no length."""
    accounts: Accounts
    """Cash and positions."""
    statistics: Statistics
    """The running statistics that the parts asked for."""
    history: BarWindows
    """The newest bars, as many as the parts asked for."""
    forecast: FloatArray
    """Mean, standard deviation of its error, and what the model itself said, of each symbol's next log-return, float64 (n, K, 3)."""
    stale_bars: IntArray
    """Bars since each symbol had one of its own, int64 (n, K): 0 where the last bar is its own."""
    refusals: IntArray
    """Orders of the last action that were refused: all of them, then by limit on risk, int64 (n, 1 + limits)."""
    live_orders: LiveOrders
    """What is still to be filled."""


class Scheme(Config):
    """A part of an episode that is chosen by name."""

    __slots__ = ()

    def warmup_bars(self) -> int:
        """Return how many bars, the one of the first action among them, it must have seen; the longest of all parts is waited for."""
        return max(1, self.history_bars())

    def history_bars(self) -> int:
        """Return how many of the newest bars it looks back at, by `view.history`."""
        return 0

    def statistics(self) -> tuple[Statistic, ...]:
        """Return what it reads from `view.statistics`."""
        return ()

    def bar_columns(self) -> tuple[str, ...]:
        """Return the further columns of the bars that it reads, by their names in the files."""
        return ()

    def new_state(self, shape: Shape) -> Any:
        """Return what it remembers of the rows of a block; None: nothing."""
        return None

    def bind(self, view: View) -> Any:
        """Return the state for the block of this view: by default `new_state`.

        The view's arrays stay the same ones while the block lives, so that what is looked up here needs no look-up at each bar.
        """
        return self.new_state(view.shape)

    def begin(self, state: Any, view: View, rows: Rows) -> None:
        """Forget the episodes that were in these rows: new ones begin, at the bar of their first action."""

    def update(self, state: Any, view: View, rows: Rows) -> None:
        """Take in a bar that has closed; the accounts are valued at it."""
