"""Writes the dashboards in deploy/grafana/dashboards: rewards, learner, serving, pipelines.

    python -m deploy.grafana.make_dashboards

Run it from the repository's root, after every change of a panel; tests hold the files to it and execute every query.
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.classic import ANY_IS_BAD, NONE_IS_GOOD, PLAIN, Dashboard, Levels, Panel, Query

FOLDER = Path("deploy/grafana/dashboards")


_NODE = ("run", "worker", "node")
_SINK = ("run", "worker", "sink")
_SYMBOL = ("run", "symbol")
_WORKER = ("run", "worker")
"""One pipeline or one serving process of a run, whoever wrote its points down."""

_WHOLE = '("cut" = false OR "no_trade_return" <= 0 OR "no_trade_return" > 0)'
"""Episodes that were not cut. Points of versions before there was the field have a baseline instead."""


def _figure(title: str, description: str, *queries: Query, unit: str = "short", width: int = 6, levels: Levels = PLAIN) -> Panel:
    """Return a panel of one figure for each series."""
    return Panel(title, description, queries, unit=unit, width=width, levels=levels)


def _chart(title: str, description: str, *queries: Query, unit: str = "short") -> Panel:
    """Return a panel of curves."""
    return Panel(title, description, queries, unit=unit)


def _mean(measurement: str, field: str, name: str = "", by: tuple[str, ...] = ("run",)) -> Query:
    """Ask for the mean of a field."""
    return Query(measurement, f'mean("{field}")', name, by)


def _result(field: str, name: str = "") -> Query:
    """Ask for a mean over the newest tenth of a pipeline's whole episodes, which it recorded."""
    return Query("result", f'last("{field}")', name, _WORKER)


def _episodes(select: str, name: str = "", by: tuple[str, ...] = ("run",)) -> Query:
    """Ask for something of the whole episodes that ended in an interval."""
    return Query("episode", select, name, by, _WHOLE)


def _server(select: str, name: str = "") -> Query:
    """Ask for something that a server said of itself."""
    return Query("server", select, name, _WORKER)


def _rate(counter: str) -> str:
    """Word the rate of a counter, per second; where it begins anew, with another process, the rate is left out."""
    return f'non_negative_derivative(max("{counter}"), 1s)'


_NEWEST = "Over the newest tenth of a pipeline's whole episodes, of all symbols; those that its end cut are left out."

REWARDS = Dashboard(
    "rewards",
    "Rewards",
    ("run", "policy", "symbol"),
    "episode",
    (
        _figure("Mean return", _NEWEST, _result("return_mean")),
        _figure("Mean return of no trade", "Holding nothing, on the same prices.", _result("no_trade_mean")),
        _figure("Mean return of random actions", "On the same prices and fees.", _result("random_mean")),
        _figure("Episodes", "Whole ones that ended in the time range.", _episodes('count("return")')),
        _chart(
            "Return of an episode",
            "5, 50 and 95 of 100 whole episodes had at most this return.",
            *(_episodes(f'percentile("return", {share})', f"{share} %") for share in (5, 50, 95)),
        ),
        _chart(
            "Return against the baselines",
            f"{_NEWEST} The baselines act on the same prices and pay the same fees.",
            _result("return_mean", "policy"),
            _result("no_trade_mean", "no trade"),
            _result("random_mean", "random"),
        ),
        _chart("Return by symbol", "Means of the whole episodes that ended in each interval.", _episodes('mean("return")', by=_SYMBOL)),
        _chart("Reward of a step", "Means.", _mean("step", "reward", by=_SYMBOL)),
        _chart(
            "Profit and costs",
            f"{_NEWEST} Shares of the initial equity. Costs are fees and slippage; the profit is what is left after them.",
            _result("profit_mean", "profit"),
            _result("costs_mean", "costs"),
            unit="percentunit",
        ),
        _chart("Length of an episode", "Mean of the whole episodes that ended in each interval, in steps.", _episodes('mean("length")')),
    ),
)

LEARNER = Dashboard(
    "learner",
    "Learner",
    ("run", "policy"),
    "train",
    (
        _figure("Iteration", "Counted on through restarts.", Query("train", 'last("iteration")')),
        _figure("Newest policy version", "After the newest iteration.", Query("train", 'last("weights_seq_no")')),
        _figure("Steps trained on", "Since the run began.", Query("train", 'last("steps_total")')),
        _figure(
            "Steps dropped",
            "Because the learner was behind, since the serving process began.",
            _server('last("steps_dropped")'),
            levels=NONE_IS_GOOD,
        ),
        _chart(
            "Return of an iteration",
            "Of the episodes that the server saw end during the iteration, those that were cut among them.",
            _mean("train", "return_mean"),
        ),
        _chart("Loss", "The learner's total loss.", _mean("train", "loss")),
        _chart("KL divergence", "Between the acting and the new policy, nats.", _mean("train", "kl")),
        _chart("Entropy", "Of the policy, nats.", _mean("train", "entropy")),
        _chart("Learning rate", "The policy's where each part of the net has its own.", _mean("train", "learning_rate")),
        _chart(
            "Policy version",
            "Of the learner, and of the serving process.",
            Query("train", 'max("weights_seq_no")', "learner"),
            _server('max("weights_seq_no")', "serving"),
        ),
        _chart(
            "Staleness",
            "Policy versions from acting to training, and to the hand-off since the serving process began; means over steps.",
            _mean("train", "staleness_mean", "trained on"),
            _mean("server", "staleness_mean", "handed off", _WORKER),
        ),
        _chart("Steps trained on per second", "Of the learner.", Query("train", _rate("steps_total")), unit="cps"),
        _chart(
            "Length of an iteration",
            "Whole, waiting for steps included, and the update alone.",
            _mean("train", "seconds", "whole"),
            _mean("train", "learn_seconds", "update"),
            unit="s",
        ),
        _chart("Steps that wait for the learner", "At the server.", _server('max("steps_waiting")')),
        _chart("Steps dropped per second", "Because the learner was behind.", _server(_rate("steps_dropped")), unit="cps"),
    ),
)

SERVING = Dashboard(
    "serving",
    "Serving",
    ("run", "policy"),
    "server",
    (
        _figure("Actions", "Computed since the serving process began.", _server('last("actions")')),
        _figure("Open episodes now", "Held by the server.", _server('last("episodes_open")')),
        _figure("Clients", "With an open stream.", _server('last("clients_connected")')),
        _figure("Uptime", "Of the serving process.", _server('last("uptime_s")'), unit="s"),
        _chart("Actions per second", "Computed by the server.", _server(_rate("actions")), unit="cps"),
        _chart(
            "Latency of an action",
            "Around the pipeline's call, the way there and back included. 50 and 99 of 100 actions took at most this long.",
            Query("node", 'mean("latency_p50_s")', "50 %", _WORKER, where="\"node\" = 'policy'"),
            Query("node", 'max("latency_p99_s")', "99 %", _WORKER, where="\"node\" = 'policy'"),
            unit="s",
        ),
        _chart(
            "Batch size",
            "Actions of one forward pass.",
            _server('non_negative_difference(max("actions")) / non_negative_difference(max("batches"))'),
        ),
        _chart("Open episodes", "Held by the server.", _server('max("episodes_open")')),
        _chart(
            "Episodes per second",
            "Begun, ended by their clients, and ended by the server because their client was gone.",
            *(_server(_rate(f"episodes_{name}"), name) for name in ("started", "finished", "reaped")),
            unit="cps",
        ),
        _chart(
            "Rows refused and repeated per second",
            "Refused: answered with an error. Repeated: sent again after a lost answer, and counted once.",
            *(_server(_rate(f"rows_{name}"), name) for name in ("refused", "repeated")),
            unit="cps",
        ),
        _chart(
            "Where steps go, per second",
            "Completed, handed to the learner, dropped by the hand-off, and of episodes that are not trained on.",
            *(_server(_rate(f"steps_{name}"), name.replace("_", " ")) for name in ("completed", "handed_off", "dropped", "untrained")),
            unit="cps",
        ),
        _chart(
            "Return at the server",
            "Of the newest episodes that finished there, whether or not their pipeline cut them.",
            _server('mean("return_mean")'),
        ),
    ),
)

PIPELINES = Dashboard(
    "pipelines",
    "Pipelines",
    ("run", "policy", "symbol"),
    "step",
    (
        _figure("Steps", "In the time range.", Query("step", 'count("reward")')),
        _figure(
            "Fallback actions",
            "Taken without the server, since the pipeline began.",
            Query("node", 'last("fallbacks")', by=_WORKER),
            levels=NONE_IS_GOOD,
        ),
        _figure(
            "Failures",
            "Of each node, since the pipeline began.",
            Query("node", 'last("failures")', by=_NODE),
            width=12,
            levels=ANY_IS_BAD,
        ),
        _chart("Events handled per second", "By each node.", Query("node", _rate("processed"), by=_NODE), unit="cps"),
        _chart("Events that wait", "In the inboxes of each node.", Query("node", 'max("waiting")', by=_NODE)),
        _chart(
            "Overflows and restarts",
            "Events that met a full inbox, and restarts after a failure, since the pipeline began.",
            *(Query("node", f'max("{name}")', name, _NODE) for name in ("overflowed", "restarts")),
        ),
        _chart(
            "Actions",
            "Taken in each interval.",
            *(Query("step", 'count("action")', name, where=f'"action" = {action}') for action, name in enumerate(("sell", "hold", "buy"))),
        ),
        _chart("Equity", "Mean over the open episodes.", _mean("step", "equity", by=_SYMBOL)),
        _chart("Position", "Mean over the open episodes, in units.", _mean("step", "position", by=_SYMBOL)),
        _chart("Orders", "Filled in each interval.", Query("order", 'count("quantity")', by=_SYMBOL)),
        _chart(
            "Fees and slippage",
            "Paid in each interval.",
            Query("order", 'sum("fee")', "fees"),
            Query("order", 'sum("slippage")', "slippage"),
        ),
        _chart(
            "Regressor's skill",
            "1 - MSE / MSE of forecasting zero; above 0 is better than that.",
            _mean("regressor", "skill", by=_SYMBOL),
        ),
        _chart(
            "Regressor's error",
            "Mean squared error of its forecasts, and of forecasting zero.",
            _mean("regressor", "mse", "forecast", _SYMBOL),
            _mean("regressor", "mse_zero", "zero", _SYMBOL),
        ),
        _chart(
            "Points recorded per second",
            "Taken by each sink, and stored in its database.",
            *(Query("sink", _rate(name), name, _SINK) for name in ("accepted", "stored")),
            unit="cps",
        ),
        _chart(
            "Points on their way",
            "Taken by each sink and not yet in its database; they wait on disk while it is away.",
            Query("sink", 'max("backlog")', by=_SINK),
        ),
        _chart(
            "Points that were not stored",
            "Dropped: refused, because too many were on their way. Dead letters: put aside, because the database can never take them. "
            "Both since the pipeline or the server began.",
            *(Query("sink", f'max("{name}")', label, _SINK) for name, label in (("dropped", "dropped"), ("dead_lettered", "dead letters"))),
        ),
    ),
)

DASHBOARDS = (REWARDS, LEARNER, SERVING, PIPELINES)


def rendered() -> dict[str, str]:
    """Return the text of each file, by its name."""
    return {f"{each.name}.json": json.dumps(each.classic(), indent=2) + "\n" for each in DASHBOARDS}


if __name__ == "__main__":
    for name, text in rendered().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
