"""Asks the nodes of a cluster a question, each in a process of its own there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from policyserver.common.settings import SettingsError

T = TypeVar("T")

_TIMEOUT_S = 60.0


def ask_nodes(nodes: Sequence[dict[str, Any]], question: Callable[[], T], what: str) -> dict[str, T]:
    """Ask all nodes at once.

    Args:
        nodes: As Ray describes them.
        question: Is called on each node. One that is defined in a function travels by value, another by its name.
        what: What a node is to say, for the error.

    Returns:
        The answers, by address and name of the node.

    Raises:
        SettingsError: A node did not answer: it names the node.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asking = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"] = asking.options(scheduling_strategy=there).remote()
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_TIMEOUT_S)
    found = {}
    for name, answer in asked.items():
        try:
            found[name] = ray.get(answer, timeout=0.0)
        except Exception as error:
            reason = " ".join(str(error).split())[-300:] or type(error).__name__
            raise SettingsError("ray.address", "", f"node {name} did not say within {_TIMEOUT_S:g} s {what}: {reason}") from error
    return found
