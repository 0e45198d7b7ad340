"""Joins a Ray cluster that is there already, for as long as this process runs, and leaves it as it was."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policyserver.common.settings import SettingsError
from policyserver.server.config.ray_config import FROM_ENVIRONMENT, RayConfig, check_cluster_address
from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.private_folder import PrivateFolder
from policyserver.server.daemon.ray_authentication import refuse_insecure
from policyserver.server.daemon.ray_local_node import refuse_without_node
from policyserver.server.daemon.ray_start import keeping_sigterm
from policyserver.server.daemon.ray_token import accepted_token

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)

_KEY = "ray.address"
_MOST_REASON_CHARS = 500
_LOCAL_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}
"""What concerns this process alone; what a node's processes read is given to `ray start`."""


class JoinedRay:
    """A cluster that this process is a driver of; `stop()` leaves it, and ends this driver's actors, but nothing else of it."""

    def __init__(self, config: RayConfig, pointer: Path | None, wait: Callable[[float], bool]) -> None:
        """Find the cluster and make this process's private folder, as `RayProcess` does; nothing is joined yet.

        Args:
            config: Which cluster.
            pointer: As of `PrivateFolder`.
            wait: Waits so many seconds and says whether this process is to stop; then the cluster is not looked at any further.

        Raises:
            SettingsError: There is no cluster, it asks for no authentication or for another token, or the folder can't be made.
            DaemonError: Its head does not answer, or this machine has no node of it.
        """
        self._config = config
        os.environ.update({name: os.environ.get(name, value) for name, value in _LOCAL_VARIABLES.items()})  # before Ray is imported
        self.address = cluster_address(config)
        asks_for_token = refuse_insecure(self.address, insecure=config.insecure)
        refuse_without_node(self.address, accepted_token(self.address) if asks_for_token else (), wait)
        self._folder = PrivateFolder(pointer)
        self.folder = self._folder.path
        self._stopped = False

    @property
    def local_host(self) -> str:
        """The address of this machine that the cluster's nodes can reach."""
        host, _, port = self.address.rpartition(":")
        family = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0][0]
        with socket.socket(family, socket.SOCK_DGRAM) as asking:  # sends nothing: the system says which way it would go
            asking.connect((host.strip("[]"), int(port)))
            return str(asking.getsockname()[0])

    def start(self, num_cpus: int, before_retry: Callable[[], None] = lambda: None) -> None:
        """Join the cluster.

        Args:
            num_cpus: CPUs that the actors of this server take.
            before_retry: Not called: a cluster that is there needs no second try.

        Raises:
            SettingsError: The cluster can't be joined.
            DaemonError: It has too few CPUs; further nodes may be there later, so that no setting is blamed.
        """
        import ray

        try:
            with keeping_sigterm():
                ray.init(
                    address=self.address,
                    namespace=self._config.namespace or None,
                    runtime_env=dict(self._config.runtime_env) or None,
                    configure_logging=False,
                    log_to_driver=True,
                )
        except Exception as error:
            ray.shutdown()
            reason = textwrap.shorten(str(error), _MOST_REASON_CHARS, placeholder=" ...")
            raise SettingsError(
                _KEY, "", f"the cluster at {self.address} can't be joined: {reason}; Ray's logs on this machine may say more"
            ) from error
        there = float(ray.cluster_resources().get("CPU", 0.0))
        if there < num_cpus:
            raise DaemonError(
                f"{_KEY}: expected a cluster with at least {num_cpus} CPUs for the actors of this server, received one with {there:g} "
                f"at {self.address}; start another node, or nodes with `--num-cpus`, or configure fewer actors"
            )
        logger.info("joined the Ray cluster at %s, %d nodes with %g CPUs", self.address, len(alive_nodes()), there)

    def stop(self) -> None:
        """Leave the cluster and remove this process's folder. A second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        try:
            if "ray" in sys.modules:
                import ray

                ray.shutdown()
        finally:
            self._folder.remove()


def cluster_address(config: RayConfig) -> str:
    """Return HOST:PORT of the cluster's head.

    Raises:
        SettingsError: The environment names no cluster.
        DaemonError: No Ray node runs on this machine; one may be started later, so that no setting is blamed.
    """
    address = config.address
    if address == FROM_ENVIRONMENT:
        address = os.environ.get("RAY_ADDRESS", "")
        if not address:
            raise SettingsError(_KEY, "", "expected the environment variable RAY_ADDRESS to be set with 'env', received none")
        if address != "auto":
            try:
                check_cluster_address(address)
            except ValueError as error:
                raise SettingsError(_KEY, "", f"RAY_ADDRESS: {error}") from error
    if address != "auto":
        return address
    from ray._private import services

    found: Any = None
    with contextlib.suppress(Exception):  # whatever Ray raises where it finds none
        found = services.canonicalize_bootstrap_address("auto")
    if not found:
        raise DaemonError(f"{_KEY}: expected a Ray node on this machine with 'auto', found none; run `ray start` first, or name HOST:PORT")
    return str(found)


def alive_nodes() -> list[dict[str, Any]]:
    """List the cluster's nodes that are alive, as Ray describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def keep_state_server_here(algorithm: Algorithm) -> None:
    """Have the actor from which IMPALA's and APPO's env runners pull their weights on this node, with the daemon.

    It takes no resources, so Ray puts it on any node of the cluster: if that one were cut off, no env runner would sample any more.
    """
    before = getattr(algorithm, "_env_runner_state_server", None)
    if before is None:
        return
    import ray
    from ray.rllib.env.env_runner_state_server import EnvRunnerStateServer
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    callers = algorithm.config.env_runner_state_server_max_concurrency
    made = ray.remote(num_cpus=0, max_restarts=-1, max_concurrency=callers)(EnvRunnerStateServer)
    server = algorithm._env_runner_state_server = made.options(scheduling_strategy=here).remote()

    def share(runner: Any) -> None:
        runner._env_runner_state_server = server

    algorithm.env_runner_group.foreach_env_runner(share, local_env_runner=True)
    ray.kill(before)
