"""Where the serving instances of a server are, as each of them knows it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from policyserver.server.config.link_address import RemoteAddress
from policyserver.server.config.node_address import advertised, on_this_node
from policyserver.server.config.serving_config import ServingConfig
from policyserver.server.grpc_front.listen_address import address_of
from policyserver.server.runner.following import node_ip
from policyserver.server.runner.node_port import NodePort


class ActorAddresses:
    """The addresses of all serving instances: on one machine by their numbers, on a cluster as the daemon tells them."""

    def __init__(self, config: ServingConfig, index: int, actors: int) -> None:
        """Begin with as many as there are.

        Args:
            config: Of each of them.
            index: RLlib's, of this one.
            actors: How many there are.
        """
        self._config = config
        self._index = index
        self.has_env = False
        """Whether an environment decides where this one listens."""
        self._told: Mapping[str, int] = {}
        self._port: NodePort | None = None
        self.actors = actors
        """How many serving instances there are; one that serves in the driver counts."""
        self.here: Callable[[], list[str]] = list
        """Returns the addresses at which clients reach this one."""

    @property
    def is_on_cluster(self) -> bool:
        """Whether the serving instances may be on several machines."""
        return isinstance(self._config.driver_link, RemoteAddress)

    def machine(self) -> tuple[str, str]:
        """Return the name of this one's machine and the address by which Ray knows it; both empty if all are on one machine."""
        return (socket.gethostname(), node_ip()) if self.is_on_cluster else ("", "")

    def own(self, index: int | None = None) -> str:
        """Return the address to listen on of the instance with this index of RLlib's, or of this one."""
        if index is None and self._port is not None:
            return self._port.address
        address = self._config.listen.address
        if self.is_on_cluster:
            address = on_this_node(address, node_ip())
        return address_of(address, max((self._index if index is None else index) - 1, 0))

    def keep_port(self) -> None:
        """Choose this one's address on its node of a cluster, and keep it from others.

        Raises:
            OSError: As of `NodePort`.
        """
        self._port = NodePort(self._config.listen, self._index, self.actors, node_ip())

    def is_listened_on(self) -> None:
        """Take note that this process listens on its address now."""
        if self._port is not None:
            self._port.is_listened_on()

    def close(self) -> None:
        """Let others have the address. A second call does nothing."""
        if self._port is not None:
            self._port.close()

    def planned(self) -> list[str]:
        """Return the addresses that this instance will have; none if the system or an environment chooses them."""
        address = self.own()
        chosen = not self.has_env and not address.endswith(":0")
        return [advertised(self._config.listen.advertise, address, node_ip())] if chosen else []

    def advertised(self, bound: str) -> str:
        """Return what clients are told of an address that is listened on."""
        return advertised(self._config.listen.advertise, bound, node_ip()) if self.is_on_cluster else bound

    def take(self, loads: Mapping[str, int]) -> None:
        """Take what the daemon tells: the episodes that are open at each address."""
        self._told = loads

    def listed(self) -> list[str]:
        """Return the addresses of all serving instances; only this one's if its port was chosen by the system or by an environment."""
        if self.is_on_cluster:
            return list(self._told) or self.here()
        if self.has_env or self._config.listen.address.endswith(":0"):
            return self.here()
        return [self.own(index) for index in range(1, self.actors + 1)]

    def loads(self) -> Mapping[str, int]:
        """Return the episodes that are open at each address, of those of which that is known."""
        return self._told
