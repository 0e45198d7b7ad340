"""What the doctor looks at of a Ray cluster: it asks the head, as a start does, and joins nothing."""

from __future__ import annotations

from collections.abc import Callable

from policyserver.common.settings import SettingsError
from policyserver.server.config.node_labels import fits
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.node_room import room_on
from policyserver.server.daemon.ray_authentication import refuse_insecure
from policyserver.server.daemon.ray_head import Metadata, alive_nodes_of, free_resources_of
from policyserver.server.daemon.ray_join import cluster_address
from policyserver.server.daemon.ray_local_node import is_node_here, missing_node
from policyserver.server.daemon.ray_token import accepted_token
from policyserver.server.doctor.check import Check, DoubtError, SkippedError

_TIMEOUT_S = 20.0
"""Ray's import, beside calls of 5 s at most."""
_HEAD = "Ray cluster"
_MOST_ACTORS = 1000
"""Of one node; more than a server has."""


def checks(config: ServerConfig) -> list[Check]:
    """List what to look at, in the order of a start; nothing where no cluster is joined."""
    if not (config.ray.joins and config.learner.enabled):
        return []
    cluster = _Cluster(config)
    node_advice = "`ray start --address=HOST:PORT` on this machine, with the cluster's token"
    looks: list[tuple[str, Callable[[], str], str, tuple[str, ...]]] = [
        (_HEAD, cluster.head, "start the head with RAY_AUTH_MODE=token, or correct ray.address; see the guide on clusters", ()),
        ("Ray token", cluster.token, "give this process the cluster's RAY_AUTH_MODE and token, as its nodes have them", ()),
        ("Ray node", cluster.node, node_advice, ()),
        ("Ray room", cluster.room, "start another node, with --resources and --labels as [ray] has them, or fewer actors", ("algorithm",)),
    ]
    return [Check(name, look, advice, _TIMEOUT_S, ("ray", *needs)) for name, look, advice, needs in looks]


class _Cluster:
    """What one look finds out, for the next ones."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._address = ""
        self._asks_for_token = False
        self._metadata: Metadata | None = None

    def head(self) -> str:
        address = cluster_address(self._config.ray)
        self._asks_for_token = refuse_insecure(address, insecure=self._config.ray.insecure)
        self._address = address
        return f"its head at {address} answers, and asks for {'a token' if self._asks_for_token else 'none'}"

    def token(self) -> str:
        address = self._found_address()
        if not self._asks_for_token:
            self._metadata = ()
            raise SkippedError("the cluster asks for none")
        self._metadata = accepted_token(address)
        return "it is the cluster's"

    def node(self) -> str:
        address, metadata = self._found_address(), self._let_in()
        if not (is_here := is_node_here(address, metadata)):
            raise DaemonError(missing_node(address, metadata, is_here))
        return "a node of the cluster runs on this machine"

    def room(self) -> str:
        """Compare what a start compares, and what is free now; the server that has it may be this one, before it is started again."""
        nodes = alive_nodes_of(self._found_address(), self._let_in())
        free = free_resources_of(self._address, self._let_in())
        if nodes is None or free is None:
            raise SkippedError("the head does not say what its nodes have")
        given = self._config.algorithm.methods.get("env_runners", {})
        actors = int(given.get("num_env_runners", 1))
        wanted = {"CPU": float(given.get("num_cpus_per_env_runner", 1)), **self._config.ray.serving_resources}
        labels = self._config.ray.serving_labels
        labelled = [node for node in nodes if fits(dict(node.labels), labels)]
        rooms = [(node.node_manager_address, room_on(dict(node.resources_total), wanted, _MOST_ACTORS)) for node in labelled]
        room = sum(some for _, some in rooms)
        what = f"{actors} serving actors that take {wanted} each{f' on nodes with the labels {labels}' if labels else ''}"
        if room < actors:
            key = "ray.serving_labels" if labels and not labelled else "ray.serving_resources"
            on = ", ".join(sorted(address for address, some in rooms if some)) or "no node"
            raise SettingsError(key, "", f"expected nodes with room for {what}, found room for {room} on {on}")
        left = sum(room_on(free.get(node.node_id, {}), wanted, _MOST_ACTORS) for node in labelled)
        if left < actors:
            raise DoubtError(f"expected room for {what}, received {left} free of {room}: something runs there")
        return f"{left} free of {room} on {len(labelled)} nodes, for {what}"

    def _found_address(self) -> str:
        if not self._address:
            raise SkippedError(f"needs the cluster's head, see {_HEAD}")
        return self._address

    def _let_in(self) -> Metadata:
        if self._metadata is None:
            raise SkippedError("needs the cluster's token, see Ray token")
        return self._metadata
