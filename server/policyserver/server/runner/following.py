"""Connects a serving actor to its daemon, on this machine or on another one."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path

import ray.util

from policyserver.server.config.link_address import LinkAddress
from policyserver.server.processes.driver_link import follow_driver
from policyserver.server.processes.link import Followed
from policyserver.server.runner.serving_loop import ServingLoop

logger = logging.getLogger(__name__)


def follow(where: LinkAddress, followed: Followed, index: int, loop: ServingLoop) -> Callable[[], None]:
    """Follow the daemon, and return what ends that.

    Args:
        where: The daemon's end.
        followed: What is done with what it says.
        index: RLlib's, of this actor.
        loop: What serves here.
    """
    if isinstance(where, Path):
        return follow_driver(
            where,
            followed.on_drain,
            followed.on_driver_gone,
            followed.on_state,
            followed.on_question,
            followed.orders,
            followed.questions,
        )
    # Only now: a start on one machine does without them.
    from policyserver.server.processes.link_secret import take_from_cluster
    from policyserver.server.processes.package_version import package_version
    from policyserver.server.processes.remote_follower import RemoteFollower
    from policyserver.v1 import driver_link_pb2 as pb

    secret = take_from_cluster(where.secret_name)
    if secret is None:
        logger.warning("the daemon at %s has left the cluster: nothing is followed", where.address)
        return lambda: None
    node_id = str(ray.get_runtime_context().get_node_id())
    hello = pb.Hello(index=index, version=package_version(), host=socket.gethostname(), boot_id=loop.boot_id, node_id=node_id)
    follower = RemoteFollower(
        where,
        secret,
        hello,
        followed,
        signs=lambda: pb.Beat(addresses=loop.advertised(), episodes_open=loop.episodes_open),
        on_silent=loop.daemon_is_silent,
        on_grace_over=loop.daemon_is_away,
        on_heard=loop.daemon_is_back,
    )
    return follower.stop


def node_ip() -> str:
    """Return the address by which Ray knows this node."""
    return str(ray.util.get_node_ip_address())
