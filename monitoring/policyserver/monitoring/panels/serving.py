"""Panels of how serving goes."""

from __future__ import annotations

from functools import partial

from policyserver.common.server_stats import ServerStats
from policyserver.monitoring.panels.panel import ChartPanel, Unit, charts_of, figure
from policyserver.monitoring.panels.series import asked, largest, level, mean, rate, ratio, rise

_OF_A_PIPELINE = {"by": ("run", "worker"), "where": "\"node\" = 'policy'"}

_figure = partial(figure, dashboard="serving")
_chart = partial(ChartPanel, dashboard="serving")
_page = partial(ChartPanel, group="serving")
_both = partial(ChartPanel, dashboard="serving", group="serving")

PANELS = (
    _figure("Actions", asked("server", 'last("actions")'), "Computed since the serving process began."),
    _figure("Open episodes now", asked("server", 'last("episodes_open")'), "Held by the server."),
    _figure("Clients", asked("server", 'last("clients_connected")'), "With an open stream."),
    _figure("Uptime", asked("server", 'last("uptime_s")'), "Of the serving process.", unit=Unit.SECONDS),
    _both("Actions per second", [rate("server", "actions", "blue")], "Computed by the server.", unit=Unit.PER_S),
    ChartPanel(
        "Latency of an action",
        [
            mean("node", "latency_p50_s", "blue", "half at most", **_OF_A_PIPELINE),
            largest("node", "latency_p99_s", "orange", "99 % at most", **_OF_A_PIPELINE),
        ],
        "Around the pipeline's call, the way there and back included.",
        unit=Unit.SECONDS,
        dashboard="serving",
        group="pipeline",
    ),
    _both(
        "Batch size", [ratio("batch_size", "green", rise("server", "actions"), rise("server", "batches"))], "Actions of one forward pass."
    ),
    *charts_of(ServerStats, "server", ("green", "teal", "blue", "violet"), "serving"),
    _page("Steps that wait for the learner", [level("server", "steps_waiting", "violet")], "At the server.", "learner"),
    ChartPanel(
        "Steps dropped per second",
        [rate("server", "steps_dropped")],
        "Because the learner was behind.",
        unit=Unit.PER_S,
        dashboard="learner",
    ),
    _page("Lost", [rise("server", "steps_dropped", "red", "steps dropped"), rise("server", "rows_refused", "orange", "rows refused")]),
    _page("Staleness at hand-off, policy versions", [mean("server", "staleness_mean", "orange")]),
    _chart(
        "Episodes per second",
        [rate("server", f"episodes_{name}", label=name) for name in ("started", "finished", "reaped")],
        "Begun, ended by their clients, and ended by the server because their client was gone.",
        unit=Unit.PER_S,
    ),
    _chart(
        "Rows refused and repeated per second",
        [rate("server", f"rows_{name}", label=name) for name in ("refused", "repeated")],
        "Refused: answered with an error. Repeated: sent again after a lost answer, and counted once.",
        unit=Unit.PER_S,
    ),
    _chart(
        "Where steps go, per second",
        [rate("server", f"steps_{name}", label=name.replace("_", " ")) for name in ("completed", "handed_off", "dropped", "untrained")],
        "Completed, handed to the learner, dropped by the hand-off, and of episodes that are not trained on.",
        unit=Unit.PER_S,
    ),
    _chart(
        "Return at the server",
        [mean("server", "return_mean")],
        "Of the newest episodes that finished there, whether or not their pipeline cut them.",
    ),
)
