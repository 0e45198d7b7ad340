"""Compares what is installed on a cluster's nodes with what is installed here, before a serving actor or a learner is put there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from policyserver.common.settings import SettingsError
from policyserver.server.daemon.ray_join import alive_nodes
from policyserver.server.processes.package_version import version_reader

logger = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
VARIABLES = {"RAY_worker_niceness": "0", "GRPC_EXPERIMENTS": "-event_engine_listener,-event_engine_client"}
"""What `ray start` must be given on a node that serves: else its workers come behind others, and take a tenth more time for an action."""


@dataclass(frozen=True)
class _Node:
    """What a node has."""

    name: str
    versions: Mapping[str, str]
    """By what they are of; our own ends in a sum of the sources, for two commits may have one version."""
    missing: tuple[str, ...]
    """Variables of `VARIABLES` that its workers lack."""


def check_nodes(wanted: Mapping[str, float], actors: int, *, serves: bool = True) -> None:
    """Refuse nodes on which an actor of this server may be put and that have other versions than this process.

    Args:
        wanted: Resources that one such actor takes.
        actors: How many there are.
        serves: Whether they are serving actors, for which `ray start` is to be given variables; else they are learners.

    Raises:
        SettingsError: No node fits, or one has another version: it names the node and both.
    """
    if not actors:
        return
    setting, what = ("ray.serving_resources", "serving actors") if serves else ("ray.learner_resources", "learners")
    fit = [node for node in alive_nodes() if all(node["Resources"].get(name, 0.0) >= amount for name, amount in wanted.items())]
    room = sum(int(min(node["Resources"].get(name, 0.0) // amount for name, amount in wanted.items())) for node in fit) if wanted else 0
    if room < actors:
        raise SettingsError(
            setting,
            "",
            f"expected nodes with room for {actors} {what} that take {dict(wanted)} each, found room for {room} on "
            f"{', '.join(node['NodeManagerAddress'] for node in fit) or 'no node'}; start nodes with `--resources`, or fewer {what}",
        )
    here = _look()()
    for node in _ask(fit):
        for part, version in here[0].items():
            if (there := node.versions.get(part, "none")) != version:
                raise SettingsError(
                    "ray.address",
                    "",
                    f"node {node.name} has {part} {there}, expected {version} as this process has; install that one there, or keep {what} "
                    f"from that node by {setting}",
                )
        if node.missing and serves:
            logger.warning(
                "node %s was started without %s: serving actors there are slower; give these environment variables to its `ray start`",
                node.name, ", ".join(f"{name}={VARIABLES[name]}" for name in node.missing),
            )  # fmt: skip


def _ask(nodes: list[dict[str, Any]]) -> list[_Node]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_look())
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"] = look.options(scheduling_strategy=there).remote()
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_TIMEOUT_S)
    found = []
    for name, answer in asked.items():
        try:
            versions, missing = ray.get(answer, timeout=0.0)
        except Exception as error:
            reason = " ".join(str(error).split())[-300:] or type(error).__name__
            raise SettingsError(
                "ray.address", "", f"node {name} did not say within {_TIMEOUT_S:g} s which versions it has: {reason}"
            ) from error
        found.append(_Node(name, versions, missing))
    return found


def _look() -> Callable[[], tuple[dict[str, str], tuple[str, ...]]]:
    """Return the function that says what a process has. A node may lack our package, so it travels by value and imports nothing of it."""
    variables, version = tuple(VARIABLES), version_reader()

    def look() -> tuple[dict[str, str], tuple[str, ...]]:
        import importlib.metadata
        import os
        import platform

        versions = {"Python": platform.python_version(), "rllib-policy-server": version()}
        for package in ("ray", "torch", "numpy"):
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                versions[package] = "none"
        lowered = os.getpriority(os.PRIO_PROCESS, 0) > os.getpriority(os.PRIO_PROCESS, os.getppid())
        has = {"RAY_worker_niceness": not lowered, "GRPC_EXPERIMENTS": "GRPC_EXPERIMENTS" in os.environ}
        return versions, tuple(name for name in variables if not has.get(name, True))

    return look
