"""How serving and training go as points. Whether pipeline or daemon asked for counters, the point is the serving process's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserver.common.figures import known
from policyserver.common.server_stats import TrainingIteration
from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import SERVER, TRAIN

_ID_CHARACTERS = 8
"""Characters of the boot id that tell serving processes apart; the log has them all."""


def serving_point(tags: Mapping[str, str], counters: Mapping[str, Any]) -> Points:
    """Make a point of counters.

    Args:
        tags: Run and policy; others are left out, for a server that two tell of is still one.
        counters: The known figures of a `ServerStats`, `boot_id` among them.
    """
    run_tags = {tag: tags[tag] for tag in ("run", "policy") if tag in tags}
    return Points.one(SERVER.name, run_tags | {"worker": f"serving-{counters['boot_id'][:_ID_CHARACTERS]}"}, counters)


def training_point(tags: Mapping[str, str], iteration: TrainingIteration) -> Points:
    """Make a point of an iteration of training."""
    return Points.one(TRAIN.name, tags, known(iteration))
