"""Has RLlib give a serving actor its configuration by value, so that Ray restarts the actor without an object of the daemon's node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from policyserver.server.config.ray_config import RayConfig
from policyserver.server.daemon.ray_start import replaced

_MOST_BYTES = 90_000
"""Ray puts a larger argument, 100 KiB with what it adds, into the object store itself, once for each actor."""


@contextlib.contextmanager
def configured_by_value(config: RayConfig) -> Iterator[None]:
    """Have the algorithm that is built meanwhile, and what makes actors for its group later, pass the configuration itself.

    RLlib passes a reference to it. Of an actor that may be restarted Ray then logs an error at the start: its restart fails where the
    object is lost.
    """
    if not config.joins:
        yield
        return
    from ray import cloudpickle
    from ray.rllib.env.env_runner_group import EnvRunnerGroup

    make = EnvRunnerGroup._make_worker

    def make_worker(group: Any, **named: Any) -> Any:
        if named["config"] is group._remote_config_obj_ref and len(cloudpickle.dumps(group._remote_config)) <= _MOST_BYTES:
            named["config"] = group._remote_config_obj_ref = group._remote_config
        return make(group, **named)

    with replaced(EnvRunnerGroup, _make_worker=make_worker):
        yield
