"""Has learners on several machines reach each other by the addresses by which Ray knows their nodes.

PyTorch's gloo takes the address of the machine's own name, which on many machines is one of loopback: the others would not reach it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from policyserver.server.config.node_address import interface_of
from policyserver.server.config.ray_config import RayConfig
from policyserver.server.daemon.ray_start import replaced

_INTERFACE = "GLOO_SOCKET_IFNAME"
"""Environment variable that names the interface by which gloo is reached."""


@contextlib.contextmanager
def reaching_each_other(config: RayConfig) -> Iterator[None]:
    """Have the learners that are built meanwhile name their interface, on a cluster; one that `ray start` was given stays."""
    if not config.joins:
        yield
        return
    from ray.rllib.core.learner import learner_group

    make = learner_group._get_backend_config

    def make_with_interface(learner_class: type) -> Any:
        made = make(learner_class)
        backend = made.backend_cls

        def on_start(self: Any, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(_name_interface)
            backend.on_start(self, worker_group, backend_config)

        naming = type("NamingBackend", (backend,), {"on_start": on_start})
        return type("NamingConfig", (type(made),), {"backend_cls": property(lambda self: naming)})()

    with replaced(learner_group, _get_backend_config=make_with_interface):
        yield


def _name_interface() -> None:
    import ray

    if _INTERFACE not in os.environ and (name := interface_of(ray.util.get_node_ip_address())):
        os.environ[_INTERFACE] = name
