"""What a server says of itself, and what a client counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym


class EndpointLoad(NamedTuple):
    """How busy one serving process is, as it was some seconds ago."""

    address: str
    """One of `ServerInfo.endpoints`."""
    episodes_open: int
    """Episodes of all clients that it holds."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a client needs to know before its first step."""

    protocol_version: int
    """Version of the protocol the server speaks."""
    server_version: str
    """Version of the server program."""
    boot_id: str
    """Made new at every start of the serving process."""
    observation_space: gym.Space[Any]
    """What the server expects as an observation."""
    action_space: gym.Space[Any]
    """What the server gives as an action."""
    endpoints: tuple[str, ...]
    """Addresses of all serving processes of the daemon."""
    max_message_bytes: int
    """Largest message the server reads, bytes."""
    max_rows_per_message: int
    """Largest number of steps in one message."""
    episode_idle_timeout_s: float
    """Seconds after the loss of a client's stream until its episodes end as truncated."""
    weights_seq_no: int
    """Policy version being served."""
    run: str
    """Name of the server's run, the tag `run` of what it records; empty: it has none."""
    instance_id: str
    """Name that the server gives itself, the same in all its serving processes; empty: none."""
    stop_timeout_s: float
    """Longest time an orderly stop of the server takes, seconds; 0: not known."""
    stale: bool
    """Whether the serving process has not heard of its daemon for some seconds: it serves the last version that it got."""
    endpoint_loads: tuple[EndpointLoad, ...] = ()
    """How busy the serving processes are, in no order; those that are missing are not known."""


@dataclass(frozen=True, slots=True)
class ClientCounters:
    """What one client did since it was made."""

    episodes_open: int
    """Episodes open now."""
    messages_sent: int
    """Messages with steps."""
    rows_waiting: int
    """Steps that wait to be sent: for a connection, or for the next message."""
    rows_sent: int
    """Steps in the messages, those sent again included."""
    rows_answered: int
    """Steps answered, refusals included."""
    rows_stale: int
    """Of these, the steps answered by a serving runner that had not heard of its daemon for some seconds."""
    connections: int
    """Handshakes made: 1 for each serving runner plus the number of reconnects."""
    episodes_lost: int
    """Episodes that ended because their serving runner died or was restarted."""
    rewards_dropped: int
    """Rewards logged before the first action of their episode, which belong to no action."""
