"""Serving actors on a cluster get a configuration by value, also later ones, unless it is so large that Ray stores it anyhow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from policyserver.server.config.ray_config import RayConfig
from policyserver.server.daemon.actor_arguments import configured_by_value
from policyserver.server.daemon.ray_start import replaced

pytestmark = pytest.mark.long

REFERENCE = object()


def given(config: RayConfig, group: Any) -> Any:
    """Return the configuration that a group's first actor is given."""
    from ray.rllib.env.env_runner_group import EnvRunnerGroup

    def make(_: Any, **named: Any) -> Any:
        return named["config"]

    with replaced(EnvRunnerGroup, _make_worker=make), configured_by_value(config):
        return EnvRunnerGroup._make_worker(group, worker_index=1, config=group._remote_config_obj_ref)


@pytest.mark.parametrize(
    ("address", "size", "is_by_value"), [("10.77.0.1:6379", 80_000, True), ("10.77.0.1:6379", 100_000, False), ("", 80_000, False)]
)
def test_a_configuration_travels_by_value_where_that_helps(address: str, size: int, is_by_value: bool) -> None:
    group = SimpleNamespace(_remote_config=bytes(size), _remote_config_obj_ref=REFERENCE)
    wanted = group._remote_config if is_by_value else REFERENCE
    assert given(RayConfig(address), group) is wanted
    assert group._remote_config_obj_ref is wanted, "which is what a later actor is given"
