"""The groups of charts on the page, in their order."""

from __future__ import annotations

from policyserver.monitoring.panels.panel import Group

GROUPS = (
    Group(
        "returns",
        "Return of finished episodes, in units of reward",
        "Of whole episodes. The band holds 5 to 95 of 100; means are over the newest tenth; no-trade and random act on the same prices and "
        "fees. Dashed line: a serving process began anew. Tick below: a checkpoint.",
        data="episodes",
        wide=True,
    ),
    Group(
        "running",
        "Running episodes",
        "At each bar: half of the episodes that are being played, and the bounds of 5 and 95 of 100 of them.",
        gaps_of="",
        data="running",
    ),
    Group("steps", "Actions", "Shares of all actions.", measurement="step"),
    Group(
        "money",
        "Money of finished episodes",
        "Means over the newest tenth of the whole episodes, in shares of the initial equity.",
        data="episodes",
    ),
    Group("pipeline", "Pipeline", measurement="node", by=("node", "worker")),
    Group("learner", "Learner", gaps_of="serving", measurement="train"),
    Group(
        "serving",
        "Serving",
        gaps_of="serving",
        measurement="server",
        by=("boot_id",),  # not the worker: two pipelines that ask one server hear of the same actions
    ),
    Group(
        "regressor",
        "Regressor",
        "Skill above 0 is better than forecasting zero. When returns grow or shrink, the market has drifted.",
        measurement="regressor",
        by=("worker",),
        merged={
            name: f"{field}_sum * forecasts_sum / forecasts_count" for name, field in (("squares", "mse"), ("squares_zero", "mse_zero"))
        },
    ),
    Group(
        "sink",
        "Recording",
        "The sinks of the pipelines and of the policy server: the embedded store, and InfluxDB where there is one.",
        gaps_of="serving",
        measurement="sink",
        by=("sink", "worker"),
    ),
)
