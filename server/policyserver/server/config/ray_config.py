"""Which Ray a server runs on, and where on it the actors are."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval

from policyserver.common.settings import Config
from policyserver.server.config.node_labels import check_selector

FROM_ENVIRONMENT = "env"
_ANY_NODE = "auto"
_LAST_PORT = 65_535
_MOST_RUNTIME_ENV_BYTES = 64 * 2**10
_RUNTIME_ENV = ("env_vars", "working_dir", "py_modules", "excludes", "pip", "uv", "conda", "config")
_ABOUT_A_CLUSTER = (
    "namespace",
    "serving_resources",
    "learner_resources",
    "serving_labels",
    "learner_labels",
    "runtime_env",
    "insecure",
    "send_secrets",
)


@dataclass(frozen=True)
class RayConfig(Config):
    """The Ray that the server runs on: one of its own on this machine, or a cluster that is there already."""

    address: str = ""
    """Empty: a Ray of the server's own, on loopback. "auto": the cluster of the Ray node on this machine. HOST:PORT: the cluster whose head
    is there, of which this machine must have a node, too. "env": what the environment variable RAY_ADDRESS says, which is not read
    otherwise. The other settings of this table are about a cluster."""
    namespace: str = ""
    """Ray namespace of the server's actors. Empty: one that Ray makes for this start."""
    serving_resources: dict[str, float] = field(default_factory=dict)
    """Ray resources that a serving actor takes, beside its CPU, such as `{serving = 1}`: it runs on a node that was started with
    `--resources='{"serving": 1}'`."""
    learner_resources: dict[str, float] = field(default_factory=dict)
    """Likewise for each learner, with `algorithm.learners.num_learners` of 1 or more."""
    serving_labels: dict[str, str] = field(default_factory=dict)
    """Labels of the nodes on which serving actors run, such as `{zone = "a"}` for those that were started with `--labels="zone=a"`. A value
    may also be "!a" (any other, or without the label), "in(a, b)" or "!in(a, b)", as in Ray's label selectors."""
    learner_labels: dict[str, str] = field(default_factory=dict)
    """Likewise for the learners, with `algorithm.learners.num_learners` of 1 or more."""
    placement: Literal["spread", "pack"] = "spread"
    """How serving actors are put on nodes: each on another one if possible, or as Ray does by default, on few while these are less than
    half in use."""
    runtime_env: dict[str, Any] = field(default_factory=dict)
    """What Ray brings to the actors' processes, for code of your own: the keys are those of Ray's runtime environments. It adds seconds to
    the start of each process."""
    insecure: bool = False
    """Whether a cluster is joined that asks for no authentication: any program that reaches it runs code on all its nodes."""

    send_secrets: bool = False
    """Whether the daemon sends the certificate, key and token that `[listen]` names to its serving actors, over its own encrypted link, so
    that they need not lie on each node. The actors keep them in memory. Needs Ray's TLS (`RAY_USE_TLS=1`): what lets an actor in at the
    link comes by Ray's own connections."""

    silent_s: Annotated[float, Interval(ge=2, le=600)] = 5.0
    """Time without a sign of life, which comes once a second, after which the daemon leaves a serving actor out of sampling, and an actor
    goes on without the learner: its clients wait for none, and their steps by-pass it and are counted."""
    partition_grace_s: Annotated[float, Interval(ge=0, le=86_400)] = 60.0
    """Time that a serving actor goes on so, with the last version it got, before it says NOT_SERVING and starts no new episodes."""

    def _check(self) -> None:
        if self.address not in ("", _ANY_NODE, FROM_ENVIRONMENT):
            check_cluster_address(self.address)
        for name in ("serving_resources", "learner_resources"):
            for resource, amount in getattr(self, name).items():
                if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount <= 1e9:
                    raise ValueError(f"{name}.{resource}: expected a number above 0, received {amount!r}")
                if resource in ("CPU", "GPU"):
                    raise ValueError(
                        f"{name}.{resource}: expected a resource of another name; CPUs and GPUs are arguments of algorithm.env_runners and "
                        "algorithm.learners"
                    )
        for name in ("serving_labels", "learner_labels"):
            check_selector(name, getattr(self, name))
        if unknown := sorted(self.runtime_env.keys() - set(_RUNTIME_ENV)):
            raise ValueError(f"runtime_env.{unknown[0]}: expected one of {', '.join(_RUNTIME_ENV)}, received {unknown[0]!r}")
        if (size := len(json.dumps(self.runtime_env, default=str))) > _MOST_RUNTIME_ENV_BYTES:
            raise ValueError(f"runtime_env: expected at most {_MOST_RUNTIME_ENV_BYTES} bytes as JSON, received {size}")
        if not self.address:
            for name in _ABOUT_A_CLUSTER:
                if getattr(self, name):
                    raise ValueError(f"{name}: expected ray.address with it, for it is about a cluster; received none")
        if self.insecure and self.send_secrets:
            raise ValueError("send_secrets: expected false with ray.insecure = true, for a cluster that lets anyone in keeps no secret")

    @property
    def joins(self) -> bool:
        """Whether the server joins a cluster."""
        return bool(self.address)


def check_cluster_address(address: str) -> None:
    """Refuse what is no address of a cluster's head.

    Raises:
        ValueError: It is not HOST:PORT.
    """
    host, separator, port = address.rpartition(":")
    if not (host and separator and port.isdecimal() and 0 < int(port) <= _LAST_PORT) or "/" in host or (":" in host and host[0] != "["):
        raise ValueError(f"address: expected HOST:PORT of a Ray cluster's head, 'auto' or 'env', received {address!r}")
