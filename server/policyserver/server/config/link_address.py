"""Where a serving actor finds its daemon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RemoteAddress:
    """The daemon's end of a link between machines, and under which name Ray keeps what proves that an actor is one."""

    address: str
    """HOST:PORT."""
    secret_name: str
    """Key in the cluster's store of keys and values. The secret itself is in no configuration, for RLlib writes those to checkpoints."""
    silent_s: float = 5.0
    """Time without a sign of life after which the other end is silent."""
    grace_s: float = 60.0
    """Time that an actor goes on serving while the daemon is silent."""
    sends_secrets: bool = False
    """Whether certificate, key and token come over the link, in place of files on the actor's machine."""


LinkAddress = Path | RemoteAddress
"""A unix socket, or beyond the machine."""
