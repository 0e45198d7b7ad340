"""A block of episodes as arrays: what happens from one bar to the next, for all of them at once, without threads, clocks and sockets.

    block.begin(rows, warm_up)                # new episodes, at the close of the bar of their first action
    observations = block.observe(rows)
    block.act(rows, actions)                  # at the close of bar t
    fills = block.fill(rows, bar)             # bar t + 1: opens, moves, closes
    marked = block.mark(rows)                 # at its close: what the actions of bar t were worth, and whether the episode is over
    observations = block.observe(rows)

Rows are at bars of their own. A row whose episode is over is begun anew; nothing else waits for it. The same calls give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.accounts import Accounts, total_of
from policyserver.pipelines.market.bars import BarRows, FloatArray, IntArray
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.history import FIELDS, BarWindows
from policyserver.pipelines.market.instruments import Instruments
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED, Fills, OrderKind, OrderRequests, Withdrawal
from policyserver.pipelines.market.risk.gate import RiskGate
from policyserver.pipelines.market.rows import ALL, Rows, count_up
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.running_statistics import Statistic, Statistics
from policyserver.pipelines.market.schemes.actions.action_scheme import Actions, ActionScheme
from policyserver.pipelines.market.schemes.scheme import Scheme, Shape, View

GOES_ON, DATA_END = 0, -1
"""Ends of `Marked.end`: none yet; the last bar of the data. A number above 0 is the place, from 1, of an end of the rules."""


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """What the close of a bar brought m rows."""

    rewards: FloatArray
    """What the actions of the bar before were worth, float64 (m,)."""
    terms: FloatArray
    """The terms that they are the sum of, float64 (m, terms)."""
    ends: IntArray
    """Why the episode is over, int64 (m,): `GOES_ON`, `DATA_END`, or the place of an end of the rules."""


@dataclass(frozen=True, slots=True, eq=False)
class WarmUp:
    """What new rows begin with: bars up to the one at whose close the first action is taken."""

    bars: FloatArray
    """Open, high, low, close, volume and E further columns, float64 (m, w, K, 5 + E)."""
    time_ns: IntArray
    """End of the last of them, int64 nanoseconds since the Unix epoch, (m,)."""
    n_steps: IntArray
    """Actions in the whole episode, int64 (m,)."""
    stale_bars: IntArray | None = None
    """How many bars before the last each symbol had its newest, int64 (m, K); none: all have one there."""


class EpisodeBlock:
    """The state of n episodes. One owner at a time: not thread-safe."""

    def __init__(
        self,
        n_rows: int,
        symbols: tuple[str, ...],
        rules: Rules,
        statistics: frozenset[Statistic] = frozenset(),
        columns: tuple[str, ...] = (),
    ) -> None:
        """Hold no episode yet; every row is to be begun before it is used.

        Args:
            n_rows: Episodes.
            symbols: What each of them trades.
            rules: What they are about.
            statistics: What others than the parts of the rules read from the view.
            columns: Further columns that the bars have.
        """
        self.rules = rules
        """What the episodes are about."""
        self.shape = shape = Shape(n_rows, symbols, columns)
        """Rows and symbols."""
        k = shape.n_symbols
        accounts = Accounts(n_rows, k)
        bar = BarRows(np.zeros(n_rows, dtype=np.int64), np.ones((n_rows, k, len(FIELDS))))
        self.broker = SimulatedBroker(accounts, Instruments(n_rows, [rules.instrument] * k), rules.account)
        """Who executes the orders."""
        self.view = View(
            shape,
            bar,
            np.zeros(n_rows, dtype=np.int64),
            np.ones(n_rows, dtype=np.int64),
            accounts,
            Statistics(n_rows, k, rules.statistics() | statistics),
            BarWindows(n_rows, k, rules.history_bars(), len(columns)),
            np.zeros((n_rows, k, 3)),
            np.zeros((n_rows, k), dtype=np.int64),
            np.zeros((n_rows, 1 + len(rules.risk)), dtype=np.int64),
            self.broker,
        )
        """What the rules' parts see."""
        self.order_events = self.broker.take_events()
        """What became of orders from the last call of `mark` to that of `fill`, or from `fill` to `mark`; see `SimulatedBroker`."""
        self._n_rows = n_rows
        self._all_rows = np.arange(n_rows).tobytes()
        self._has_stale = False
        """Whether a symbol has been without a bar of its own."""
        self._calls_to_end = 0
        """Calls of `fill` in which no row comes to the last bar of its episode, at least."""
        self._warmup_bars = rules.warmup_bars()
        self._action_state = rules.actions.bind(self.view)
        self._action_dtype = rules.actions.space(symbols).dtype
        self._cancels = type(rules.actions).cancels is not ActionScheme.cancels
        self._observers = [(part, part.bind(self.view)) for part in rules.observers]
        self._rewards = [(part, part.bind(self.view)) for part in rules.rewards]
        self._ends = [(part, part.bind(self.view)) for part in rules.ends]
        limits = [(part, part.bind(self.view)) for part in rules.risk]
        self._orders: SimulatedBroker | RiskGate = RiskGate(limits, self.view, self.broker) if limits else self.broker
        self._any_refused = False
        self._aims = type(rules.actions).refused is not ActionScheme.refused
        """Whether the scheme wants to know which orders come to nothing."""
        self._unfilled: list[IntArray] = []
        """Rows of which an order has come to nothing in the bar."""
        own: list[tuple[Any, Any]] = [(rules.actions, self._action_state), *self._observers, *self._rewards, *self._ends]
        self._parts = [*own, *limits]
        self._updating = [(part, state) for part, state in self._parts if type(part).update is not Scheme.update]
        self._sizes = [int(np.prod(part.space(symbols).shape)) for part in rules.observers]
        # By `Marked.ends`: the last place is DATA_END, the first GOES_ON.
        self._terminates = np.array([False, *(part.terminates for part in rules.ends), False])
        self._low, self._high = rules.bounds(symbols)
        self.observation_size = len(self._low)
        """Numbers in an observation."""

    def begin(self, rows: IntArray, warm_up: WarmUp) -> None:
        """Begin new episodes in rows, at the close of the last of their warm-up bars.

        Raises:
            ValueError: The rules look back at more bars than there are.
        """
        view, count = self.view, warm_up.bars.shape[1]
        if count < self._warmup_bars:
            raise ValueError(f"warm-up: expected at least the {self._warmup_bars} bars that the rules look back at, received {count}")
        last = warm_up.bars[:, -1]
        view.bar.set(rows, BarRows(warm_up.time_ns, last))
        view.clock[rows] = 0
        view.n_steps[rows] = warm_up.n_steps
        self._calls_to_end = min(self._calls_to_end, int(warm_up.n_steps.min(initial=0)))
        view.accounts.begin(rows, self.rules.account.initial_equity, last[..., FIELDS.index("close")])
        view.statistics.begin(rows, warm_up.bars[..., FIELDS.index("close")])
        view.history.begin(rows, warm_up.bars)
        view.forecast[rows] = 0.0
        view.stale_bars[rows] = 0 if warm_up.stale_bars is None else warm_up.stale_bars
        self._has_stale |= warm_up.stale_bars is not None
        view.refusals[rows] = 0
        self.broker.begin(rows)
        for part, state in self._parts:
            part.begin(state, view, rows)

    def fill(self, rows: Rows, bar: BarRows, present: npt.NDArray[np.bool_] | None = None) -> Fills:
        """Play the next bar of some rows: orders fill, shorts are paid for, statistics go on. Returns the fills.

        `present`: which symbols have a bar, bool (m, K); none: those that `bar` says.
        """
        view, rows = self.view, self._all_or(rows)
        present = bar.present if present is None else present
        if present is not None or self._has_stale:
            view.stale_bars[rows] = 0 if present is None else np.where(present, 0, view.stale_bars[rows] + 1)
            self._has_stale = True
        self.broker.fill(rows, bar, present)
        view.bar.set(rows, bar)
        count_up(view.clock, rows)
        self._calls_to_end -= 1
        view.statistics.update(rows, view.accounts.price[rows])
        view.history.update(rows, bar)
        self.order_events = self.broker.take_events()
        if self._aims and self.order_events.parts:
            self._unfilled.append(self.order_events.unfilled_rows())
        return self.broker.take_fills()

    def mark(self, rows: Rows) -> Marked:
        """Value the positions at the close of the bar that was filled; return what that was worth and whose episode is over."""
        view, rows = self.view, self._all_or(rows)
        accounts = view.accounts
        accounts.value(rows)
        values = [part.compute(state, view, rows) for part, state in self._rewards]
        terms = values[0][:, None] if len(values) == 1 else np.array(values).T.copy()
        rewards = total_of(terms)
        accounts.settle(rows)
        released = self.broker.call_margins(rows)
        if self._aims and (self._unfilled or len(released)):
            self._note_unfilled(released)
        for part, state in self._updating:
            part.update(state, view, rows)
        self.order_events = self.broker.take_events()
        return Marked(rewards, terms, self._ends_of(rows, len(rewards)))

    def _ends_of(self, rows: Rows, count: int) -> IntArray:
        """Return why the episodes in m rows are over, int64 (m,); see `Marked.ends`."""
        view, ends = self.view, np.zeros(count, dtype=np.int64)
        if self._calls_to_end <= 0:
            ends[view.clock[rows] >= view.n_steps[rows]] = DATA_END
            self._calls_to_end = int((view.n_steps - view.clock).min())
        for place in range(len(self._ends), 0, -1):
            end, state = self._ends[place - 1]
            reached = end.reached(state, view, rows)
            if np.count_nonzero(reached):
                ends[reached] = place
        return ends

    def _all_or(self, rows: Rows) -> Rows:
        """Return `ALL` for the numbers of all rows: views of arrays cost less than copies."""
        if isinstance(rows, slice) or len(rows) < self._n_rows or rows.tobytes() != self._all_rows:
            return rows
        return ALL

    def terminates(self, ends: IntArray) -> npt.NDArray[np.bool_]:
        """Return which of some ends terminate an episode rather than truncate it, bool (m,)."""
        return self._terminates[ends]

    def observe(self, rows: Rows = ALL) -> npt.NDArray[np.float32]:
        """Return the observations at the last bar's close, float32 (m, size), within the bounds of the observers' spaces."""
        rows = self._all_or(rows)
        blocks = [part.observe(state, self.view, rows) for part, state in self._observers]
        values = np.concatenate([block if block.ndim == 2 else block.reshape(len(block), -1) for block in blocks], axis=1)
        np.minimum(np.maximum(values, self._low, out=values), self._high, out=values)
        return values.astype(np.float32)

    def act(self, rows: IntArray, actions: Actions) -> None:
        """Submit the orders that actions ask for, at the close of the last bar."""
        scheme, state, view = self.rules.actions, self._action_state, self.view
        self._forget_refusals(rows)
        if self._cancels:
            cancels = scheme.cancels(state, view, rows, actions)
            self.broker.cancel_all(rows if np.count_nonzero(cancels) == len(rows) else rows[cancels])
        for requests in scheme.orders(state, view, rows, actions):
            if isinstance(requests, Withdrawal):
                self.broker.withdraw(requests)
            elif len(requests.rows):
                self.submit(requests)

    def hold(self, rows: IntArray) -> None:
        """Let the orders and positions of rows be, at the close of the last bar: no order is given, none is cancelled."""
        self._forget_refusals(rows)

    def close_positions(self, rows: IntArray) -> None:
        """Cancel the orders of rows, and submit market orders that close their positions, whatever their actions say.

        What can't be cancelled, for its bar has begun, is closed as if it had been filled.
        """
        self._forget_refusals(rows)
        self.broker.cancel_all(rows)
        self.rules.actions.begin(self._action_state, self.view, rows)
        committed, position = self.broker.committed(rows), self.view.accounts.position[rows]
        if committed is not None:
            position += committed
        for symbol in range(self.shape.n_symbols):
            is_open = position[:, symbol] != 0
            open_rows = rows[is_open]
            count = len(open_rows)
            if count:
                kinds, prices = np.full(count, int(OrderKind.MARKET)), np.zeros(count)
                symbols, good_for = np.full(count, symbol), np.full(count, GOOD_TILL_CANCELLED)
                self.submit(OrderRequests(open_rows, symbols, kinds, -position[is_open, symbol], prices, good_for))

    def submit(self, requests: OrderRequests) -> npt.NDArray[np.bool_]:
        """Submit orders, one each of some rows, through the limits on risk if there are any; return which are accepted, bool (m,)."""
        accepted = self._orders.submit(requests)
        self._note_refusals(requests.rows, accepted)
        return accepted

    def replace(self, requests: OrderRequests, numbers: IntArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Put one order each in the place of a live one, as the broker's `replace` does, through the limits on risk."""
        found, accepted = self._orders.replace(requests, numbers)
        self._note_refusals(requests.rows[found], accepted[found])
        return found, accepted

    def _note_refusals(self, rows: IntArray, accepted: npt.NDArray[np.bool_]) -> None:
        if np.count_nonzero(accepted) < len(accepted):
            refused = rows[~accepted]
            self.view.refusals[refused, 0] += 1
            self._any_refused = True
            self.rules.actions.refused(self._action_state, self.view, refused)

    def _note_unfilled(self, released: IntArray) -> None:
        """Tell the scheme of rows whose orders came to nothing in the bar, and of those whose positions a margin call has closed."""
        rows = np.unique(np.concatenate([*self._unfilled, released]))
        self._unfilled.clear()
        if len(rows):
            self.rules.actions.refused(self._action_state, self.view, rows)

    def _forget_refusals(self, rows: IntArray) -> None:
        if self._any_refused:
            self.view.refusals[rows] = 0

    def keeping(self, rows: IntArray) -> Actions:
        """Return the actions nearest to changing nothing, of the space's dtype; see `ActionScheme`."""
        return np.asarray(self.rules.actions.keeping(self._action_state, self.view, rows), dtype=self._action_dtype)

    def closing(self, rows: IntArray) -> Actions:
        """Return the actions nearest to closing all positions, of the space's dtype; see `ActionScheme`."""
        return np.asarray(self.rules.actions.closing(self._action_state, self.view, rows), dtype=self._action_dtype)
