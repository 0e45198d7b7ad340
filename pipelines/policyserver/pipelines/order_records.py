"""What is recorded of orders: their fills, and what else became of them."""

from __future__ import annotations

import math

import numpy as np

from policyserver.monitoring.points import Column
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.orders import KIND_FACTS, Fills, OrderKind, State
from policyserver.pipelines.played_block import PlayedBlock
from policyserver.pipelines.runtime.routes import Recorder

_KINDS = [kind.name.lower() for kind in OrderKind]
_STATES = [state.name.lower() for state in State]


def record_fills(recorder: Recorder, played: PlayedBlock, fills: Fills) -> None:
    """Write the fills of a bar."""
    if not (recorder.is_kept and len(fills.rows)):
        return
    view, ids = played.block.view, played.ids
    columns: dict[str, Column] = {
        "episode": [ids[row] for row in fills.rows.tolist()],
        "bar": view.clock.take(fills.rows),
        "bar_time_s": view.bar.time_ns.take(fills.rows) * 1e-9,
        "quantity": fills.quantity,
        "reference_price": fills.reference_price,
        "fill_price": fills.price,
        "fee": fills.fee,
        "slippage": abs(fills.quantity) * abs(fills.price - fills.reference_price),
    }
    recorder.add("order", columns, symbol=_symbols(played, fills.rows, fills.symbol))


def record_order_events(recorder: Recorder, played: PlayedBlock) -> None:
    """Write what became of orders until the block's last `fill` or `mark`, and put it into the block's turn.

    Nothing is written, or computed, where nothing became of any.
    """
    untold = played.block.order_events
    if not untold.parts:
        return
    events, reasons = untold.told(), played.block.rules.reasons
    played.turn.add_orders(events.rows, events.number, events.state, events.reason)
    if not recorder.is_kept:
        return
    columns: dict[str, Column] = {
        "episode": [played.ids[row] for row in events.rows.tolist()],
        "bar": played.block.view.clock[events.rows] - ~events.in_bar,
        "number": events.number,
        "quantity": events.quantity,
        "left": events.left,
        "price": np.where(KIND_FACTS.has_price[events.kind], events.price, math.nan),
        "reduce_only": events.reduce_only,
    }
    recorder.add(
        "order_event",
        columns,
        symbol=_symbols(played, events.rows, events.symbol),
        kind=[_KINDS[kind] for kind in events.kind.tolist()],
        event=[_STATES[state] for state in events.state.tolist()],
        reason=[reasons[reason] for reason in events.reason.tolist()],
    )


def _symbols(played: PlayedBlock, rows: IntArray, symbol: IntArray) -> list[str]:
    """Return the names of the symbols that rows trade."""
    if played.block.shape.n_symbols == 1:
        names_of = played.symbols
        return [names_of[row] for row in rows.tolist()]
    names = [episode.symbols for row in rows.tolist() if (episode := played.episodes[row]) is not None]
    return [symbols[place] for symbols, place in zip(names, symbol.tolist(), strict=True)]
