"""Marks the accounts at the close, and says what the actions were worth: to the server, to the ledger, to the sink."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.events import FillEvent, RewardEvent
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.block import GOES_ON, Marked
from policyserver.pipelines.market.orders import Fills
from policyserver.pipelines.market.schemes.actions.sell_hold_buy import SellHoldBuy
from policyserver.pipelines.nodes.pipeline_node import PipelineNode, Wiring
from policyserver.pipelines.order_records import record_order_events
from policyserver.pipelines.played_block import PlayedBlock
from policyserver.pipelines.run_state import DECISIONS_KEPT, ExactSum, ShownDecision

_SHOWN_PER_BATCH = 3
"""Decisions of a batch that are shown, so that those of several threads are seen together."""

_SHOW_S = 0.05
"""Seconds from one batch that is shown to the next: more would not be seen."""


class RewardNode(PipelineNode[FillEvent]):
    """Computes each action's reward one bar after it."""

    is_lent = True

    def __init__(self, name: str, wiring: Wiring) -> None:
        """Make the node; see `Node`."""
        super().__init__(name, wiring)
        self.ledger = ExactSum()
        """All rewards that this node has logged with the server."""
        self._shows_again_s = 0.0

    def _process(self, batch: list[FillEvent]) -> None:
        events = []
        for event in batch:
            played, rows = event.played, event.rows
            if played.abandoned:
                continue
            marked = None
            if event.fills is not None:
                marked = played.block.mark(rows)
                self._keep(played, rows, marked, event.fills)
                self._settle(played, rows, marked)
                record_order_events(self._recorder, played)
            events.append(RewardEvent(played, rows, marked))
        self._routes.signal.push_many(events)

    def _settle(self, played: PlayedBlock, rows: IntArray, marked: Marked) -> None:
        """Say what the actions were worth whose last bar it is; of the others keep the sums.

        When the run ends, the bar is the last one of every action; what ends after that without one has no reward in any ledger.
        """
        rewards, last_bar = marked.rewards, played.block.view.accounts.last_bar
        fees, slippage = last_bar[2:4].copy() if len(rows) == last_bar.shape[1] else last_bar[2:4, rows]
        if played.has_frames:
            played.sums.add(rows, np.column_stack([rewards, fees, slippage]))
            if not self._run_state.stopping.is_set():
                rows = rows[played.asks[rows] | (marked.ends != GOES_ON)]
            rewards, fees, slippage = played.sums.take(rows).T
        if len(rows):
            self._log(played, rows, rewards)
            if self._recorder.is_kept:
                self._record(played, rows, rewards, fees, slippage)
            self._show(played, rows, rewards)
            self._run_state.add_steps(len(rows))

    def _log(self, played: PlayedBlock, rows: IntArray, rewards: FloatArray) -> None:
        """Tell the server, but for rows of whose actions it has still to hear."""
        into = slice(None) if len(rows) == len(played.steps) else rows
        played.steps[into] += 1
        played.returns[into] += rewards
        ids, told = played.ids_of(rows), rewards.tolist()
        if played.unreported:
            for row, reward in zip(rows.tolist(), told, strict=True):
                if row in played.unreported:
                    played.unreported[row][-1].reward = reward  # the server hears of it after the action
            heard = [place for place, row in enumerate(rows.tolist()) if row not in played.unreported]
            ids, told = [ids[place] for place in heard], [told[place] for place in heard]
        self._policy.log_returns_batch(ids, told)
        self.ledger.add(math.fsum(told))

    def _keep(self, played: PlayedBlock, rows: IntArray, marked: Marked, fills: Fills) -> None:
        """Put the bar into the block's turn."""
        turn = played.turn
        turn.marked = rows, marked.rewards, played.block.view.accounts.equity[rows], marked.ends
        if len(fills.rows):
            turn.fills = fills.rows, fills.symbol, fills.quantity, fills.reference_price, fills.price, fills.fee

    def _record(self, played: PlayedBlock, rows: IntArray, rewards: FloatArray, fees: FloatArray, slippage: FloatArray) -> None:
        """Write the steps that a bar ends."""
        decision, accounts, actions = played.decision, played.block.view.accounts, played.block.rules.actions
        whole = len(rows) == len(played.steps)

        def of(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return values if whole else values[rows]

        columns: dict[str, Any] = {
            "episode": played.ids_of(rows),
            "bar": of(decision.bar),
            "bar_time_s": of(decision.time_ns) * 1e-9,
            "equity": accounts.equity.copy() if whole else accounts.equity[rows],
            "reward": rewards,
            "fee": fees,
            "slippage": slippage,
            "fallback": of(decision.fallback),
            "weights_seq_no": of(decision.weights_seq_no),
        }
        if played.block.shape.n_symbols == 1:  # of several symbols there is no one price; their fills are recorded as orders
            columns["price"] = of(decision.price)
            columns["prediction"], columns["prediction_std"] = of(decision.prediction).T[:2]
            columns["position"] = accounts.position[:, 0].copy() if whole else accounts.position[rows, 0]
        if isinstance(actions, SellHoldBuy):  # the field's numbers mean sell, hold and buy
            columns["action"] = of(decision.action)
        else:
            columns["action_text"] = actions.labels(of(decision.action))
        self._recorder.add("step", columns, symbol=played.symbols_of(rows))

    def _show(self, played: PlayedBlock, rows: IntArray, rewards: FloatArray) -> None:
        """Show some decisions whose reward is known, unless as many as are shown came a moment ago."""
        if (now_s := time.monotonic()) < self._shows_again_s and len(self._run_state.decisions) >= DECISIONS_KEPT:
            return
        self._shows_again_s = now_s + _SHOW_S
        decision, actions = played.decision, played.block.rules.actions
        exposure = played.block.view.accounts.exposure(rows[:_SHOWN_PER_BATCH])
        self._run_state.decisions.extend(
            ShownDecision(
                bar=int(decision.bar[row]),
                price=float(decision.price[row]),
                prediction=float(decision.prediction[row, 0]),
                action=actions.label(decision.action[row]),
                fallback=bool(decision.fallback[row]),
                weights_seq_no=int(decision.weights_seq_no[row]),
                node=decision.node,
                episode=played.ids[row],
                symbol=played.symbols[row],
                position=float(exposure[place, 0]),
                reward=float(rewards[place]),
            )
            for place, row in enumerate(rows[:_SHOWN_PER_BATCH].tolist())
        )
