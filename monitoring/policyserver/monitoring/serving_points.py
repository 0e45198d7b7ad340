"""A serving process's counters as a point. Whoever asked for them, pipeline or daemon, the point is the serving process's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import SERVER

_ID_CHARACTERS = 8
"""Characters of the boot id that tell serving processes apart; the log has them all."""


def serving_point(tags: Mapping[str, str], counters: Mapping[str, Any]) -> Points:
    """Make a point of those counters that are recorded, where they are known.

    Args:
        tags: Run and policy; others are left out, for a server that two tell of is still one.
        counters: By their names in the schema, `boot_id` among them.
    """
    run_tags = {tag: tags[tag] for tag in ("run", "policy") if tag in tags}
    fields = {name: counters[name] for name in SERVER.types if counters.get(name) is not None}
    return Points.one(SERVER.name, run_tags | {"worker": f"serving-{counters['boot_id'][:_ID_CHARACTERS]}"}, fields)
