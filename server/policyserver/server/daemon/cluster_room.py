"""Whether a Ray cluster has room for serving actors and learners, and nodes that can bear them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policyserver.common.settings import SettingsError
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.node_listening import check_listening
from policyserver.server.daemon.node_room import room_on
from policyserver.server.daemon.ray_join import alive_nodes
from policyserver.server.daemon.ray_nodes import check_nodes, learner_place, serving_place
from policyserver.server.daemon.scale_errors import NoRoomError, ScaleError

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


def check_cluster(config: ServerConfig, rllib_config: AlgorithmConfig) -> None:
    """Refuse a cluster on which the server can't run as it is configured.

    Raises:
        SettingsError: See `check_nodes`.
        DaemonError: See `check_nodes` and `check_listening`.
    """
    _check_serving(config, rllib_config, rllib_config.num_env_runners)
    check_nodes(learner_place(config.ray, rllib_config), rllib_config.num_learners)


def check_room(config: ServerConfig, rllib_config: AlgorithmConfig, more: int) -> None:
    """Refuse more serving actors than the cluster has room for now.

    Raises:
        NoRoomError: There is room for fewer.
        ScaleError: A node on which one might be put has other versions, or can't listen.
    """
    from ray._private.state import available_resources_per_node

    place = serving_place(config.ray, rllib_config)
    labelled = {node["NodeID"] for node in alive_nodes() if place.has_labels(node)}
    free = {node: resources for node, resources in available_resources_per_node().items() if node in labelled}
    there = sum(room_on(resources, place.resources, more) for resources in free.values())
    if there < more:
        raise NoRoomError(
            f"expected room for {more} more serving actors {place}, found room for {there} on {len(free)} nodes; start another node, or "
            "ask for fewer"
        )
    try:
        _check_serving(config, rllib_config, int(rllib_config.num_env_runners) + more)
    except (SettingsError, DaemonError) as error:
        raise ScaleError(str(error)) from error


def _check_serving(config: ServerConfig, rllib_config: AlgorithmConfig, actors: int) -> None:
    place = serving_place(config.ray, rllib_config)
    check_nodes(place, actors)
    if actors and rllib_config.env is None:  # else the environment decides where it listens
        check_listening(place, config.listen, secrets_are_sent=config.ray.send_secrets)
