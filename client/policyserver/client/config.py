"""How a client connects, waits and sends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt

from policyserver.common.settings import Config


@dataclass(frozen=True)
class ClientConfig(Config):
    """Settings of a PolicyClient. The defaults suit a server on the same machine."""

    action_timeout_s: Annotated[float, Gt(0)] = 60.0
    """Longest time a call waits for the server's answer, reconnecting included, seconds. A call's own `timeout_s` overrides it."""
    waits_for_learner: bool = True
    """Whether the environment can wait. If so, a call for an action waits, before it is decided, while the learner has all the steps it
    wants and its new weights are not served yet: no step is lost, and the policy learns from its own newest steps. Set False for an
    environment that runs in real time: its calls are answered at once, and the oldest steps are dropped if they come faster than the
    learner takes them."""
    learner_wait_timeout_s: Annotated[float, Gt(0)] = 300.0
    """Longest time a call waits for the learner, seconds, which is not part of `action_timeout_s`; then the call is answered anyway. The
    server has a limit of its own (hand_off.room_wait_s)."""
    connect_timeout_s: Annotated[float, Gt(0)] = 30.0
    """Longest time the first call (and each call that starts episodes) waits for a connection, seconds."""
    spread_episodes: bool = True
    """Connect to all serving runners that the server lists, also to those that come later, and give each new episode to the one with the
    fewest. False: use only the given address."""
    reconnect_backoff_initial_s: Annotated[float, Gt(0)] = 0.1
    """Pause before the first attempt to reconnect, seconds; doubled after each that fails."""
    reconnect_backoff_max_s: Annotated[float, Gt(0)] = 2.0
    """Longest pause between attempts to reconnect, seconds."""
    overload_backoff_initial_s: Annotated[float, Gt(0)] = 0.02
    """Pause before a row that the server refused for the moment is sent again, seconds; doubled each time."""
    overload_backoff_max_s: Annotated[float, Gt(0)] = 0.5
    """Longest pause before such a row is sent again, seconds."""
    messages_in_flight: Annotated[int, Ge(1)] = 2
    """Most messages sent and not yet answered. What is asked meanwhile goes out together in the next one."""
    max_rows_per_message: Annotated[int, Ge(1)] = 4096
    """Largest number of steps in one message. The server's own limit holds too."""
    max_message_bytes: Annotated[int, Ge(1)] = 4 * 1024 * 1024
    """Largest message sent, bytes. The server's own limit holds too."""
    max_reply_bytes: Annotated[int, Ge(1)] = 64 * 1024 * 1024
    """Largest message accepted from the server, bytes."""
    closed_episodes_remembered: Annotated[int, Ge(1)] = 100_000
    """Number of ended or lost episodes whose ids still give the exact error; older ones are unknown."""
    keepalive_time_s: Annotated[float, Gt(0)] = 10.0
    """Silence after which the connection is probed, seconds; it may be twice as long, as gRPC looks so often. So a machine that is gone
    without a word is noticed after twice this and `keepalive_timeout_s` at most. With less than 1 the server closes the connection."""
    keepalive_timeout_s: Annotated[float, Gt(0)] = 10.0
    """Time without an answer to a probe after which the connection counts as broken, and longest attempt to connect, seconds. An outage of
    the network that is shorter breaks nothing; one that lasts for a further attempt to connect costs the episodes of a runner, if there are
    others."""
    expected_run: str | None = None
    """Refuse a server that records another run. One that records none is not refused. None takes any."""
    expected_instance_id: str | None = None
    """Refuse a server with another `instance_id`, such as another one at the same address. None takes any."""
    records_in: tuple[str, ...] = ()
    """Where this program records the episodes that it plays, by the names of `policyserver.monitoring.recording.places`: what the server
    records goes to the same places, and an episode should be there once. Empty: the server records each episode."""
    callers_core: Annotated[int, Ge(0)] | None = None
    """Processor core for the client's own threads and the threads that call it; None leaves them to the system. Python runs one thread at a
    time anyway, so hundreds of threads that do little else get up to twice the actions, and tens of threads half as many again if the other
    cores are idle. A thread stays bound after its call, and so do the threads it starts: use None where threads compute outside Python's
    lock. Linux only."""
    tls_ca_file: Path | str | None = None
    """PEM file with the certificates that sign the server's. None means plaintext: loopback addresses and unix sockets only."""
    token_file: Path | str | None = None
    """File with the token that the server knows this client by. Required together with `tls_ca_file` off the machine."""
