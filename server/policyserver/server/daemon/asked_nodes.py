"""Asks the nodes of a cluster a question, each in a process of its own there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from policyserver.server.daemon.daemon_errors import DaemonError, last_line

T = TypeVar("T")

_TIMEOUT_S = 60.0


def ask_nodes(nodes: Sequence[dict[str, Any]], question: Callable[[], T], what: str) -> list[tuple[str, T]]:
    """Ask all nodes at once.

    Args:
        nodes: As Ray describes them.
        question: Is called on each node. One that is defined in a function travels by value, another by its name.
        what: What a node is to say, for the error.

    Returns:
        Address and name of each node, and its answer.

    Raises:
        DaemonError: A node did not answer; it may be one that Ray has not given up yet, so that no setting is blamed.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asking = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked.append((f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})", asking.options(scheduling_strategy=there).remote()))
    ray.wait([answer for _, answer in asked], num_returns=len(asked), timeout=_TIMEOUT_S)
    found = []
    for name, answer in asked:
        try:
            found.append((name, ray.get(answer, timeout=0.0)))
        except Exception as error:
            raise DaemonError(f"ray.address: node {name} did not say within {_TIMEOUT_S:g} s {what}: {last_line(error)}") from error
    return found
