"""How serving, training and recording go, as points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserver.common.figures import known
from policyserver.common.server_stats import TrainingIteration
from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import CONTROL, SERVER, SINK, TRAIN
from policyserver.monitoring.sink import MultiSink, Sink

_ID_CHARACTERS = 8
"""Characters of the boot id that tell serving processes apart; the log has the whole id."""


def serving_point(tags: Mapping[str, str], counters: Mapping[str, Any]) -> Points:
    """Make a point of a serving process's counters. It is the process's own, whether the daemon or a pipeline asked for them.

    Args:
        tags: Run and policy are taken; the others would be those of the process that asked.
        counters: The known figures of a `ServerStats`, `boot_id` among them.
    """
    return Points.one(SERVER.name, serving_tags(tags, counters), counters)


def serving_tags(tags: Mapping[str, str], counters: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a serving process's points, of which `tags` gives the run and the policy."""
    run_tags = {tag: tags[tag] for tag in ("run", "policy") if tag in tags}
    return run_tags | {"worker": serving_process(counters)}


def serving_process(counters: Mapping[str, Any]) -> str:
    """Name a serving process."""
    return f"serving-{counters['boot_id'][:_ID_CHARACTERS]}"


def training_point(tags: Mapping[str, str], iteration: TrainingIteration) -> Points:
    """Make a point of an iteration of training."""
    return Points.one(TRAIN.name, tags, known(iteration))


def control_point(tags: Mapping[str, str], call: str, who: str, request: str, refusal: str | None, weights_seq_no: int) -> Points:
    """Make a point of a call of the admin service."""
    fields = {"call": call, "who": who, "request": request, "refusal": refusal, "weights_seq_no": weights_seq_no}
    return Points.one(CONTROL.name, tags, fields)


def write_counters(sink: Sink, tags: Mapping[str, str]) -> None:
    """Write the counters of each sink that stores something where all points go: into these sinks."""
    if sinks := sink.sinks if isinstance(sink, MultiSink) else (sink,):
        statistics = [each.statistics() for each in sinks]
        columns = {name: [getattr(counters, name) for counters in statistics] for name in SINK.types}
        sink.write(Points(SINK.name, tags, columns, tag_columns={"sink": [type(each).__name__ for each in sinks]}))
