"""Panels of the pipelines: their nodes, their actions on the market, the regressor, the recording."""

from __future__ import annotations

from functools import partial

import numpy as np

from policyserver.monitoring.action import Action
from policyserver.monitoring.panels.panel import ANY_IS_BAD, NONE_IS_GOOD, ChartPanel, Unit, figure
from policyserver.monitoring.panels.series import Series, asked, largest, level, made_of, mean, rate, ratio, rise, total
from policyserver.monitoring.panels.table import Table
from policyserver.monitoring.panels.table import ratio as divided

_NODES = {
    "market": "gray",
    "execution": "orange",
    "reward": "green",
    "signal": "violet",
    "policy": "blue",
    "portfolio": "teal",
    "episode": "red",
}
"""The nodes of a pipeline in the order of its circle, with their colours."""

_ACTIONS = {Action.SELL: "red", Action.HOLD: "gray", Action.BUY: "green"}
"""The actions in the order of their numbers, with their colours."""

_COUNTS = {action: total("step", action.label, sums={action.label: f"action = {action:d}"}) for action in _ACTIONS}
_SQUARES = total("regressor", "squares", sums={"squares": "mse * forecasts"})
_SQUARES_ZERO = total("regressor", "squares_zero", sums={"squares_zero": "mse_zero * forecasts"})
_FORECASTS = total("regressor", "forecasts")


def _waiting(node: str, color: str) -> Series:
    """Draw the queues of one node."""

    def values(table: Table) -> np.ndarray:
        return table.level("waiting", [group for group in table.groups if group[0] == node])

    return level("node", "waiting", color, node, column=f"waiting_{node}", values=values, select="")


def _of_a_step(name: str, color: str) -> Series:
    """Draw the mean over all steps."""
    return ratio(name, color, total("step", name), total("step", "steps", sums={"steps": "1"}))


def _rms(column: str, color: str, label: str, squares: Series, **style: object) -> Series:
    """Draw the root of squares over the forecasts of a bucket."""
    reads = made_of(lambda summed, forecasts: np.sqrt(divided(summed, forecasts)), squares, _FORECASTS)
    return Series(measurement="regressor", column=column, color=color, label=label, style=style, **reads)


_figure = partial(figure, dashboard="pipelines")
_chart = partial(ChartPanel, dashboard="pipelines")
_node, _step, _regressor, _sink = (partial(ChartPanel, group=name) for name in ("pipeline", "steps", "regressor", "sink"))

PANELS = (
    _figure("Steps", asked("step", 'count("reward")', by=("run",)), "In the time range."),
    _figure(
        "Fallback actions",
        asked("node", 'last("fallbacks")', by=("run", "worker")),
        "Taken without the server, since the pipeline began.",
        levels=NONE_IS_GOOD,
    ),
    _figure("Failures", asked("node", 'last("failures")'), "Of each node, since the pipeline began.", width=12, levels=ANY_IS_BAD),
    _chart("Events handled per second", [rate("node", "processed")], "By each node.", unit=Unit.PER_S),
    _node(
        "Waiting events",
        [*(_waiting(node, color) for node, color in _NODES.items()), asked("node", 'max("waiting")')],
        "In the inboxes of each node.",
        "pipelines",
    ),
    _node("Nodes", [rise("node", "failures", "red", "failures"), rise("node", "restarts", "orange", "restarts")]),
    _node(
        "Events and actions",
        [rise("node", "overflowed", "red", "met a full inbox"), rise("node", "fallbacks", "orange", "fallback actions")],
    ),
    _chart(
        "Overflows and restarts",
        [largest("node", name, label=name) for name in ("overflowed", "restarts")],
        "Events that met a full inbox, and restarts after a failure, since the pipeline began.",
    ),
    _step(
        "",
        [ratio(action.label, color, _COUNTS[action], *_COUNTS.values(), label=action.label) for action, color in _ACTIONS.items()],
        unit=Unit.SHARE,
        look={"stack": True},
    ),
    _step("Fallback actions", [_of_a_step("fallback", "orange")], unit=Unit.SHARE),
    _step("Fee of a step, currency", [_of_a_step("fee", "violet")]),
    _step("Slippage of a step, currency", [_of_a_step("slippage", "violet")]),
    _chart(
        "Actions",
        [asked("step", 'count("action")', action.label, by=("run",), where=f'"action" = {action:d}') for action in _ACTIONS],
        "Taken in each interval.",
    ),
    _chart("Equity", [mean("step", "equity")], "Mean over the open episodes."),
    _chart("Position", [mean("step", "position")], "Mean over the open episodes, in units."),
    _chart("Orders", [asked("order", 'count("quantity")')], "Filled in each interval."),
    _chart(
        "Orders refused",
        [asked("order_event", 'count("quantity")', where="\"event\" = 'rejected'")],
        "By the limits on risk and the broker in each interval, by reason.",
    ),
    _chart(
        "Fees and slippage",
        [asked("order", 'sum("fee")', "fees", by=("run",)), asked("order", 'sum("slippage")', "slippage", by=("run",))],
        "Paid in each interval.",
    ),
    _regressor(
        "Regressor's skill",
        [mean("regressor", "skill", "blue", **made_of(lambda error, zero: 1.0 - divided(error, zero), _SQUARES, _SQUARES_ZERO))],
        "1 - MSE / MSE of forecasting zero; above 0 is better than that.",
        "pipelines",
    ),
    _chart(
        "Regressor's error",
        [mean("regressor", "mse", label="forecast"), mean("regressor", "mse_zero", label="zero")],
        "Mean squared error of its forecasts, and of forecasting zero.",
    ),
    _regressor(
        "Root mean square, log-return",
        [_rms("error", "orange", "error", _SQUARES), _rms("moves", "gray", "returns", _SQUARES_ZERO, dash=[6, 4])],
    ),
    _regressor("Observations skipped", [rise("regressor", "skipped", "red")]),
    _chart(
        "Points recorded per second",
        [rate("sink", name, label=name) for name in ("accepted", "stored")],
        "Taken by each sink, and stored in its database.",
        unit=Unit.PER_S,
    ),
    _sink("Points per second", [rate("sink", "accepted", "blue")]),
    _sink(
        "Points on their way",
        [level("sink", "backlog", "violet")],
        "Taken by each sink and not yet in its database; they wait on disk while it is away.",
        "pipelines",
    ),
    _sink("Points", [rise("sink", "dropped", "red", "dropped"), rise("sink", "dead_lettered", "orange", "dead letters")]),
    _chart(
        "Points that were not stored",
        [largest("sink", "dropped", label="dropped"), largest("sink", "dead_lettered", label="dead letters")],
        "Dropped: refused, because too many were on their way. Dead letters: put aside, because the database can never take them. "
        "Both since the pipeline or the server began.",
    ),
)
