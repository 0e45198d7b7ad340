"""Compares what is installed on a cluster's nodes with what is installed here, before a serving actor or a learner is put there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from policyserver.common.settings import SettingsError
from policyserver.server.config.node_labels import fits
from policyserver.server.config.ray_config import RayConfig
from policyserver.server.daemon.asked_nodes import ask_nodes
from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.node_room import room_on
from policyserver.server.daemon.ray_join import alive_nodes
from policyserver.server.daemon.remote_learners import learner_resources
from policyserver.server.processes.package_version import version_reader

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

logger = logging.getLogger(__name__)

VARIABLES = {"RAY_worker_niceness": "0", "GRPC_EXPERIMENTS": "-event_engine_listener,-event_engine_client"}
"""What `ray start` must be given on a node that serves: else its workers come behind others, and take a tenth more time for an action."""


class Place(NamedTuple):
    """What a node must have for one actor of a kind."""

    kind: str
    """The start of their settings' names: "serving" or "learner"."""
    what: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]

    def has(self, node: Mapping[str, Any]) -> bool:
        """Tell whether a node, as Ray describes it, has the labels and, were it empty, the resources."""
        return self.has_labels(node) and all(node["Resources"].get(name, 0.0) >= amount for name, amount in self.resources.items())

    def has_labels(self, node: Mapping[str, Any]) -> bool:
        """Tell whether a node has the labels."""
        return fits(node.get("Labels") or {}, self.labels)

    def __str__(self) -> str:
        """Say what one such actor takes, for refusals."""
        on = f" on a node with the labels {dict(self.labels)}" if self.labels else ""
        return f"that take {dict(self.resources)} each{on}"


def serving_place(config: RayConfig, rllib_config: AlgorithmConfig) -> Place:
    """Return what a serving actor needs."""
    resources = {"CPU": float(rllib_config.num_cpus_per_env_runner), **config.serving_resources}
    return Place("serving", "serving actors", resources, config.serving_labels)


def learner_place(config: RayConfig, rllib_config: AlgorithmConfig) -> Place:
    """Return what a learner in a process of its own needs."""
    return Place("learner", "learners", learner_resources(rllib_config), config.learner_labels)


def fitting_nodes(place: Place) -> list[dict[str, Any]]:
    """List the nodes on which an actor may be put, as Ray describes them."""
    return [node for node in alive_nodes() if place.has(node)]


def check_nodes(place: Place, actors: int) -> None:
    """Refuse nodes on which an actor of this server may be put and that have other versions than this process.

    `ray start` is to be given variables where serving actors run.

    Args:
        place: What one such actor needs.
        actors: How many there are.

    Raises:
        SettingsError: A node has another version: it names the node and both.
        DaemonError: There is too little room; further nodes may be there later, so that no setting is blamed.
    """
    if not actors:
        return
    kind, what, resources, _ = place
    nodes = alive_nodes()
    fit = fitting_nodes(place)
    room = sum(room_on(node["Resources"], resources, actors) for node in fit)
    if room < actors:
        lack_labels = not any(map(place.has_labels, nodes))
        raise DaemonError(
            f"ray.{kind}_{'labels' if lack_labels else 'resources'}: expected nodes with room for {actors} {what} {place}, found room for "
            f"{room} on {', '.join(node['NodeManagerAddress'] for node in fit) or 'no node'}{_unknown(resources, nodes)}; start nodes with "
            f"{'`--labels`' if lack_labels else '`--resources`'}, or fewer {what}"
        )
    here = _look()()
    for name, (versions, lacking) in ask_nodes(fit, _look(), "which versions it has"):
        for part, version in here[0].items():
            if (there := versions.get(part, "none")) != version:
                raise SettingsError(
                    "ray.address",
                    "",
                    f"node {name} has {part} {there}, expected {version} as this process has; install that one there, or keep {what} "
                    f"from that node by ray.{kind}_resources or ray.{kind}_labels",
                )
        if lacking and kind == "serving":
            logger.warning(
                "node %s was started without %s: serving actors there are slower; give these environment variables to its `ray start`",
                name, ", ".join(f"{variable}={VARIABLES[variable]}" for variable in lacking),
            )  # fmt: skip


def _unknown(resources: Mapping[str, float], nodes: Sequence[Mapping[str, Any]]) -> str:
    """Say, for a refusal, which resources no node has, and which ones they have: one may be misspelt."""
    named = sorted({name for node in nodes for name in node["Resources"] if ":" not in name})
    unknown = sorted(resources.keys() - set(named))
    return f" (none has {', '.join(unknown)}; they have {', '.join(named)})" if unknown else ""


def _look() -> Callable[[], tuple[dict[str, str], tuple[str, ...]]]:
    """Return the function that says what versions a process has, and which of `VARIABLES` it lacks.

    A node may lack our package, so it travels by value and imports nothing of it.
    """
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
