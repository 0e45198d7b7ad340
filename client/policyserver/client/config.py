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
    """Whether the environment can wait. A call for an action then waits, before it is decided, while the learner has the steps it wants and
    its new weights are not served yet: no step is lost, and the policy learns from its own newest steps. False is for what runs in real
    time: its calls are answered at once, and where its steps come faster than they are learned from, the oldest are dropped."""
    learner_wait_timeout_s: Annotated[float, Gt(0)] = 300.0
    """Longest time a call waits for the learner, seconds, which is not part of `action_timeout_s`; after it the call is answered all the
    same. The server has a limit of its own (hand_off.room_wait_s)."""
    connect_timeout_s: Annotated[float, Gt(0)] = 30.0
    """Longest time the first call (and each call that starts episodes) waits for a connection, seconds."""
    spread_episodes: bool = True
    """Of a server with several serving runners, connect to all that it names, and give each new episode to the one with the fewest. False
    keeps to the address that was given."""
    reconnect_backoff_initial_s: Annotated[float, Gt(0)] = 0.1
    """Pause before the first attempt to reconnect, seconds; doubled after each that fails."""
    reconnect_backoff_max_s: Annotated[float, Gt(0)] = 2.0
    """Longest pause between attempts to reconnect, seconds."""
    overload_backoff_initial_s: Annotated[float, Gt(0)] = 0.02
    """Pause before a row goes out again that the server refused for the moment, seconds; doubled each time."""
    overload_backoff_max_s: Annotated[float, Gt(0)] = 0.5
    """Longest pause before such a row goes out again, seconds."""
    messages_in_flight: Annotated[int, Ge(1)] = 2
    """Messages sent and not yet answered. What is asked meanwhile goes out together in the next one."""
    max_rows_per_message: Annotated[int, Ge(1)] = 4096
    """Largest number of steps in one message. The server's own limit holds too."""
    max_message_bytes: Annotated[int, Ge(1)] = 4 * 1024 * 1024
    """Largest message sent, bytes. The server's own limit holds too."""
    max_reply_bytes: Annotated[int, Ge(1)] = 64 * 1024 * 1024
    """Largest message accepted from the server, bytes."""
    closed_episodes_remembered: Annotated[int, Ge(1)] = 100_000
    """Number of ended or lost episodes whose ids still give the exact error; older ones are unknown."""
    keepalive_time_s: Annotated[float, Gt(0)] = 60.0
    """Silence after which the connection is probed, seconds. Less than 30 makes a server hang up."""
    keepalive_timeout_s: Annotated[float, Gt(0)] = 20.0
    """Time a probe waits for its answer before the connection counts as broken, seconds."""
    expected_run: str | None = None
    """Refuse a server that records another run. One that records none is not refused. None takes any."""
    expected_instance_id: str | None = None
    """Refuse a server that calls itself otherwise (its `instance_id`): another one at the same address. None takes any."""
    callers_core: Annotated[int, Ge(0)] | None = None
    """Processor core to bind the threads to that wait for this client's answers, and the client's own; None leaves them to the system. For
    hundreds of threads that do little else it means up to twice the actions, for Python runs one of them at a time anyway; for tens half as
    many again where the other cores have time, else nothing. A thread stays bound after its call, and so is what it starts from then on:
    None where threads compute outside Python's lock. Linux only."""
    tls_ca_file: Path | str | None = None
    """PEM file with the certificates that sign the server's. None means plaintext: loopback addresses and unix sockets only."""
    token_file: Path | str | None = None
    """File with the token that the server knows this client by. Required together with `tls_ca_file` off the machine."""
