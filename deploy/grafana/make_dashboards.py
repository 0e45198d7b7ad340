"""Writes the dashboards in deploy/grafana/dashboards: rewards, learner, serving, pipelines.

    python -m deploy.grafana.make_dashboards

Run it from the repository's root, after every change of a panel; tests hold the files to it and execute every query.
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.classic import Dashboard, Panel, Query

FOLDER = Path("deploy/grafana/dashboards")


def _rate(counter: str) -> str:
    """Word the rate of a counter, per second; where it begins anew, with another process, the rate is left out."""
    return f'non_negative_derivative(max("{counter}"), 1s)'


def _means(measurement: str, **fields: str) -> tuple[Query, ...]:
    """Return one query for each field, its mean named by the keyword."""
    return tuple(Query(measurement, f'mean("{field}")', name.replace("_", " ")) for name, field in fields.items())


_WORKER = ("run", "worker")
"""Who asked the server, so that two servers of a run are not taken for one."""

REWARDS = Dashboard(
    "rewards",
    "Rewards",
    ("run", "policy", "symbol"),
    "episode",
    (
        Panel("Mean return", "Of all episodes in the time range.", (Query("episode", 'mean("return")'),), width=6, stat=True),
        Panel("Mean return, no trade", "Holding nothing.", (Query("episode", 'mean("no_trade_return")'),), width=6, stat=True),
        Panel("Mean return, random", "Random actions.", (Query("episode", 'mean("random_return")'),), width=6, stat=True),
        Panel("Episodes", "Finished in the time range.", (Query("episode", 'count("return")'),), width=6, stat=True),
        Panel(
            "Return of an episode",
            "5, 50 and 95 of 100 episodes had at most this return.",
            tuple(Query("episode", f'percentile("return", {share})', f"{share} %") for share in (5, 50, 95)),
        ),
        Panel(
            "Return against the baselines",
            "Means. The baselines act on the same prices and pay the same fees; cut episodes count for the policy alone.",
            _means("episode", policy="return", no_trade="no_trade_return", random="random_return"),
        ),
        Panel("Return by symbol", "Means.", (Query("episode", 'mean("return")', by=("run", "symbol")),)),
        Panel("Reward of a step", "Means.", (Query("step", 'mean("reward")', by=("run", "symbol")),)),
        Panel(
            "Profit and costs",
            "Means over episodes, as shares of the initial equity. Costs are fees and slippage, and have been paid already.",
            _means("episode", profit="profit", costs="costs"),
            unit="percentunit",
        ),
        Panel("Length of an episode", "Mean, in steps.", (Query("episode", 'mean("length")'),)),
    ),
)

LEARNER = Dashboard(
    "learner",
    "Learner",
    ("run", "policy"),
    "train",
    (
        Panel("Iteration", "Counted on through restarts.", (Query("train", 'last("iteration")'),), width=6, stat=True),
        Panel("Policy version", "After the newest iteration.", (Query("train", 'last("weights_seq_no")'),), width=6, stat=True),
        Panel("Steps trained on", "Since the run began.", (Query("train", 'last("steps_total")'),), width=6, stat=True),
        Panel(
            "Steps dropped",
            "By the hand-off, because the learner was behind.",
            (Query("server", 'last("steps_dropped")'),),
            width=6,
            stat=True,
        ),
        Panel("Return", "Mean of the episodes that ended during an iteration.", (Query("train", 'mean("return_mean")'),)),
        Panel("Loss", "The learner's total loss.", (Query("train", 'mean("loss")'),)),
        Panel("KL divergence", "Between the acting and the new policy, nats.", (Query("train", 'mean("kl")'),)),
        Panel("Entropy", "Of the policy, nats.", (Query("train", 'mean("entropy")'),)),
        Panel(
            "Policy version",
            "Of the learner, and of the serving process.",
            (
                Query("train", 'max("weights_seq_no")', "learner"),
                Query("server", 'max("weights_seq_no")', "serving"),
            ),
        ),
        Panel(
            "Staleness",
            "Policy versions from acting to training, mean over steps.",
            (
                Query("train", 'mean("staleness_mean")', "trained on"),
                Query("server", 'mean("staleness_mean")', "handed off"),
            ),
        ),
        Panel("Steps trained on", "Per second.", (Query("train", _rate("steps_total")),), unit="cps"),
        Panel(
            "Length of an iteration",
            "Whole, waiting for steps included, and the update alone.",
            _means("train", whole="seconds", update="learn_seconds"),
            unit="s",
        ),
        Panel("Steps that wait for the learner", "At the server, now.", (Query("server", 'max("steps_waiting")', by=_WORKER),)),
        Panel(
            "Steps dropped",
            "Per second, because the learner was behind.",
            (Query("server", _rate("steps_dropped"), by=_WORKER),),
            unit="cps",
        ),
    ),
)

SERVING = Dashboard(
    "serving",
    "Serving",
    ("run", "policy"),
    "server",
    (
        Panel(
            "Actions", "Computed since the serving process began.", (Query("server", 'last("actions")', by=_WORKER),), width=6, stat=True
        ),
        Panel("Open episodes", "Held by the server now.", (Query("server", 'last("episodes_open")', by=_WORKER),), width=6, stat=True),
        Panel("Clients", "With an open stream.", (Query("server", 'last("clients_connected")', by=_WORKER),), width=6, stat=True),
        Panel("Uptime", "Of the serving process.", (Query("server", 'last("uptime_s")', by=_WORKER),), unit="s", width=6, stat=True),
        Panel("Actions", "Per second.", (Query("server", _rate("actions"), by=_WORKER),), unit="cps"),
        Panel(
            "Latency of an action",
            "Around the pipeline's call, its network included. 50 and 99 of 100 actions took at most this long.",
            (
                Query("node", 'mean("latency_p50_s")', "50 %", by=_WORKER, where="\"node\" = 'policy'"),
                Query("node", 'max("latency_p99_s")', "99 %", by=_WORKER, where="\"node\" = 'policy'"),
            ),
            unit="s",
        ),
        Panel(
            "Batch size",
            "Actions of one forward pass.",
            (Query("server", 'non_negative_difference(max("actions")) / non_negative_difference(max("batches"))', by=_WORKER),),
        ),
        Panel("Open episodes", "Held by the server.", (Query("server", 'max("episodes_open")', by=_WORKER),)),
        Panel(
            "Episodes",
            "Per second: begun, ended by their clients, and ended by the server because their client was gone.",
            tuple(Query("server", _rate(f"episodes_{name}"), name, by=_WORKER) for name in ("started", "finished", "reaped")),
            unit="cps",
        ),
        Panel(
            "Rows refused and repeated",
            "Per second. Refused: answered with an error. Repeated: sent again after a lost answer, and counted once.",
            tuple(Query("server", _rate(f"rows_{name}"), name, by=_WORKER) for name in ("refused", "repeated")),
            unit="cps",
        ),
        Panel(
            "Where steps go",
            "Per second: completed, handed to the learner, dropped by the hand-off, and of episodes that are not trained on.",
            tuple(
                Query("server", _rate(f"steps_{name}"), name.replace("_", " "), by=_WORKER)
                for name in (
                    "completed",
                    "handed_off",
                    "dropped",
                    "untrained",
                )
            ),
            unit="cps",
        ),
        Panel(
            "Mean return",
            "Of the newest episodes that finished, as the server sees them.",
            (Query("server", 'mean("return_mean")', by=_WORKER),),
        ),
    ),
)

PIPELINES = Dashboard(
    "pipelines",
    "Pipelines",
    ("run", "policy", "symbol"),
    "step",
    (
        Panel("Steps", "In the time range.", (Query("step", 'count("reward")'),), width=6, stat=True),
        Panel(
            "Fallback actions",
            "Taken without the server, since the pipeline began.",
            (Query("node", 'last("fallbacks")', by=_WORKER),),
            width=6,
            stat=True,
        ),
        Panel(
            "Failures",
            "Of each node, since the pipeline began.",
            (Query("node", 'last("failures")', by=("run", "node")),),
            width=12,
            stat=True,
        ),
        Panel(
            "Events handled", "Per second, of each node.", (Query("node", _rate("processed"), by=("run", "worker", "node")),), unit="cps"
        ),
        Panel("Events that wait", "In the inboxes of each node.", (Query("node", 'max("waiting")', by=("run", "worker", "node")),)),
        Panel(
            "Overflows and restarts",
            "Events that met a full inbox, and restarts after a failure, since the pipeline began.",
            tuple(Query("node", f'max("{name}")', name, by=("run", "worker", "node")) for name in ("overflowed", "restarts")),
        ),
        Panel(
            "Actions",
            "Taken in each interval.",
            tuple(
                Query("step", 'count("action")', name, where=f'"action" = {action}') for action, name in enumerate(("sell", "hold", "buy"))
            ),
        ),
        Panel("Equity", "Mean over open episodes.", (Query("step", 'mean("equity")', by=("run", "symbol")),)),
        Panel("Position", "Mean over open episodes, in units.", (Query("step", 'mean("position")', by=("run", "symbol")),)),
        Panel("Orders", "Filled in each interval.", (Query("order", 'count("quantity")', by=("run", "symbol")),)),
        Panel(
            "Fees and slippage",
            "Paid in each interval.",
            (
                Query("order", 'sum("fee")', "fees"),
                Query("order", 'sum("slippage")', "slippage"),
            ),
        ),
        Panel(
            "Regressor's skill",
            "1 - MSE / MSE of forecasting zero; above 0 is better than that.",
            (Query("regressor", 'mean("skill")', by=("run", "symbol")),),
        ),
        Panel(
            "Regressor's error",
            "Mean squared error of its forecasts, and of forecasting zero.",
            (
                Query("regressor", 'mean("mse")', "forecast", by=("run", "symbol")),
                Query("regressor", 'mean("mse_zero")', "zero", by=("run", "symbol")),
            ),
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
