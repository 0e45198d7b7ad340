"""Whether a node of a Ray cluster runs on this machine, without which no program here can join it: Ray looks for one for a minute."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.ray_head import Metadata, alive_nodes_of

_WAIT_S = 4.0
_WAIT_FOR_START_S = 20.0
"""For a node that runs here and is not known to the head: it may have been started just now."""
_LOOK_S = 0.25
_MOST_NAMED = 5


def refuse_without_node(address: str, metadata: Metadata, wait: Callable[[float], bool]) -> None:
    """Refuse to join where no node of a cluster runs on this machine. One that is being started is waited for.

    Args:
        address: HOST:PORT of the cluster's head.
        metadata: What lets this process in there.
        wait: Waits so many seconds and says whether this process is to stop; then nothing is refused any more.

    Raises:
        DaemonError: There is no such node; one may be started later, so that no setting is blamed.
    """
    began_s = time.monotonic()
    while not (is_here := is_node_here(address, metadata)):
        if time.monotonic() - began_s > (_WAIT_S if is_here is False else _WAIT_FOR_START_S):
            raise DaemonError(missing_node(address, metadata, is_here))
        if wait(_LOOK_S):  # no event tells of another program's process; Ray looks once a second
            return


def is_node_here(address: str, metadata: Metadata) -> bool | None:
    """Tell whether a node of a cluster runs on this machine, as Ray finds it: by its process, whatever its addresses.

    Returns:
        None where Ray nodes run here that the head does not know as alive. Where the head does not say, a node here is one of its.
    """
    from ray._private import services

    here = services.find_node_ids()
    if not here:
        return False
    nodes = alive_nodes_of(address, metadata)
    return True if nodes is None or any(node.node_id.hex() in here for node in nodes) else None


def missing_node(address: str, metadata: Metadata, is_here: bool | None) -> str:
    """Say that this machine has no node of a cluster, where the cluster has nodes, and what to do."""
    nodes = alive_nodes_of(address, metadata) or []
    named = ", ".join(sorted(node.node_manager_address for node in nodes)[:_MOST_NAMED]) or "unknown"
    more = f" and {len(nodes) - _MOST_NAMED} more" if len(nodes) > _MOST_NAMED else ""
    there = "no Ray node runs here" if is_here is False else "the Ray nodes that run here are not of that cluster, or it has given them up"
    return (
        f"ray.address: expected a node of the Ray cluster at {address} on this machine ({socket.gethostname()}): {there}; its nodes are "
        f"{named}{more}. Run `ray start --address={address}` here first, with the cluster's token"
    )
