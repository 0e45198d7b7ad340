"""Panels of how learning goes."""

from __future__ import annotations

from functools import partial

from policyserver.common.server_stats import TrainingIteration
from policyserver.monitoring.panels.panel import NONE_IS_GOOD, ChartPanel, Unit, charts_of, figure
from policyserver.monitoring.panels.series import asked, largest, mean, rate, ratio, total

_figure = partial(figure, dashboard="learner")
_chart = partial(ChartPanel, dashboard="learner")
_both = partial(ChartPanel, dashboard="learner", group="learner")

_AGES = {0: "none", 1: "1", 2: "2 or 3", 4: "4 to 7", 8: "8 to 15", 16: "16 or more"}
"""Policy versions that the classes of steps are behind, by the least number, which is in the field's name."""

PANELS = (
    _figure("Iteration", asked("train", 'last("iteration")'), "Counted on through restarts."),
    _figure("Newest policy version", asked("train", 'last("weights_seq_no")'), "After the newest iteration."),
    _figure("Steps trained on", asked("train", 'last("steps_total")'), "Since the run began."),
    _figure(
        "Steps dropped",
        asked("server", 'last("steps_dropped")'),
        "Because the learner was behind, since the serving process began.",
        levels=NONE_IS_GOOD,
    ),
    _chart(
        "Return of an iteration",
        [mean("train", "return_mean")],
        "Of the episodes that the server saw end during the iteration, those that were cut among them.",
    ),
    *charts_of(TrainingIteration, "train", ("blue", "violet", "green", "teal"), "learner"),
    _both(
        "Policy version",
        [largest("train", "weights_seq_no", "blue", "learner"), largest("server", "weights_seq_no", label="serving")],
        "Of the learner, and of the serving process.",
    ),
    _both(
        "Staleness, policy versions",
        [mean("train", "staleness_mean", "orange", "trained on"), mean("server", "staleness_mean", label="handed off")],
        "From acting to training, and to the hand-off since the serving process began; means over steps.",
    ),
    ChartPanel(
        "Steps by the age of their policy",
        [
            total("train", f"steps_behind_{since}", color, label)
            for (since, label), color in zip(_AGES.items(), ("blue", "teal", "green", "violet", "orange", "red"), strict=True)
        ],
        "Policy versions from acting to the hand-off, of the steps trained on; the sums of an interval.",
        dashboard="learner",
        group="learner",
        look={"stack": True},
    ),
    _both(
        "Steps trained per second",
        [
            ratio("steps_per_s", "green", total("train", "steps"), total("train", "seconds"), select=""),
            rate("train", "steps_total", column=""),
        ],
        "Of the learner.",
        unit=Unit.PER_S,
    ),
    ChartPanel("An iteration's update takes", [mean("train", "learn_seconds", "violet")], unit=Unit.SECONDS, group="learner"),
    _chart(
        "Length of an iteration",
        [mean("train", "seconds", label="whole"), mean("train", "learn_seconds", label="update")],
        "Whole, waiting for steps included, and the update alone.",
        unit=Unit.SECONDS,
    ),
)
