"""Whether a Ray cluster has room for further serving actors, and whether its nodes have this server's versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from policyserver.common.settings import SettingsError
from policyserver.server.config.ray_config import RayConfig
from policyserver.server.daemon.ray_join import alive_nodes
from policyserver.server.daemon.scale_errors import NoRoomError, ScaleError

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


def check_room(config: RayConfig, rllib_config: AlgorithmConfig, more: int) -> None:
    """Refuse more serving actors than the cluster has room for now.

    Raises:
        NoRoomError: There is room for fewer.
        ScaleError: A node on which one might be put has other versions.
    """
    from ray._private.state import available_resources_per_node

    from policyserver.server.daemon.ray_nodes import check_nodes, serving_place

    place = serving_place(config, rllib_config)
    labelled = {node["NodeID"] for node in alive_nodes() if place.has_labels(node)}
    free = {node: resources for node, resources in available_resources_per_node().items() if node in labelled}
    there = sum(room_on(resources, place.resources, more) for resources in free.values())
    if there < more:
        raise NoRoomError(
            f"expected room for {more} more serving actors {place}, found room for {there} on {len(free)} nodes; start another node, or "
            "ask for fewer"
        )
    try:
        check_nodes(place, int(rllib_config.num_env_runners) + more)
    except SettingsError as error:
        raise ScaleError(str(error)) from error


def room_on(free: Mapping[str, float], wanted: Mapping[str, float], most: int) -> int:
    """Return how many actors a node takes whose free resources are these, `most` at most."""
    amounts = {name: amount for name, amount in wanted.items() if amount > 0}
    return min((int(free.get(name, 0.0) // amount) for name, amount in amounts.items()), default=most)
