"""The inner parts of a client that tests reach: all in one place, for they are free to change."""

from __future__ import annotations

from dataclasses import replace

from policyserver.client import PolicyClient
from policyserver.client.balancing import Balancer
from policyserver.client.connection import Connection


def balancer_of(client: PolicyClient) -> Balancer:
    return client._balancer


def connections_of(client: PolicyClient) -> tuple[Connection, ...]:
    return balancer_of(client).connections


def connection_of(client: PolicyClient) -> Connection:
    """Return the connection to the address that was given."""
    return balancer_of(client).given


def hurry(client: PolicyClient, connect_timeout_s: float) -> None:
    """Have a client that is connected wait for so long from now on for a connection that is not there."""
    client._config = replace(client._config, connect_timeout_s=connect_timeout_s)


def unlisted_of(client: PolicyClient) -> list[Connection]:
    """Return the connections to runners that the service has no more."""
    return [connection for connection in connections_of(client) if not connection.is_listed]
