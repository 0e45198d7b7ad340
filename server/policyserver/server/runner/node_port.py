"""The address of a serving actor on a cluster, on the node where Ray has put it: chosen there, and kept from others."""

from __future__ import annotations

import contextlib

from policyserver.server.config.node_address import is_unique_by_node, on_this_node
from policyserver.server.config.serving_config import ListenConfig
from policyserver.server.grpc_front.listen_address import address_of, first_free, reserve_ports


class NodePort:
    """An address of this node that this process alone may listen on, from now until `close`."""

    def __init__(self, listen: ListenConfig, index: int, instances: int, node_ip: str) -> None:
        """Choose it: where each node has addresses of its own, the first that is free, so that it is the same whichever actor is put there.

        Args:
            listen: The configuration.
            index: RLlib's, of this actor, from 1.
            instances: How many actors there are.
            node_ip: By which Ray knows this node.

        Raises:
            AddressInUseError: Other processes have all of those that it may be.
            OSError: It can't be bound for another reason.
        """
        here = on_this_node(listen.address, node_ip)
        numbers = range(max(instances, index, listen.max_actors)) if is_unique_by_node(listen.address, listen.advertise) else [index - 1]
        self._claim, self._kept = contextlib.ExitStack(), contextlib.ExitStack()
        self.address = self._claim.enter_context(first_free([address_of(here, number) for number in numbers]))
        self._kept.enter_context(reserve_ports([self.address]))

    def is_listened_on(self) -> None:
        """Leave it to the server of this process, which listens on it now."""
        self._kept.close()

    def close(self) -> None:
        """Let others have it. A second call does nothing."""
        self._kept.close()
        self._claim.close()
