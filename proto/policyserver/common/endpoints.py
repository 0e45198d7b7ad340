"""Addresses as users write them -> targets as gRPC wants them, and which of them never leave the machine."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from urllib.parse import urlsplit

LONGEST_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""Longest path of a unix socket: what the system's sockaddr_un holds."""


def parse_address(address: str) -> str:
    """Turn "http://host:port", "host:port", "[::1]:port" or "unix:path" into a gRPC target.

    The scheme says nothing about encryption; the TLS settings do. It is accepted because RLlib's PolicyClient wants it.

    Raises:
        ValueError: no host, no port from 0 to 65535, another scheme, a path after the port, or one too long for a unix socket.
    """
    expected = f"address: expected 'http://host:port', 'host:port' or 'unix:path', received {address!r}"
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.strip("/"):
            raise ValueError(expected)
        if len(os.fsencode(path.removeprefix("//"))) > LONGEST_SOCKET_PATH_BYTES:
            raise ValueError(f"address: expected a path of at most {LONGEST_SOCKET_PATH_BYTES} bytes for a unix socket, received {path!r}")
        return address
    parts = urlsplit(address if "://" in address else f"http://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{expected} ({error})") from error
    if parts.scheme not in ("http", "https") or not host or port is None or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(expected)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_local(target: str) -> bool:
    """Tell whether a target of `parse_address` is a unix socket or a loopback address (names other than "localhost" are not)."""
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].strip("[]")
    return host == "localhost" or _is_loopback(host)


def strays(target: str) -> str:
    """Return the address off this machine that the hosts file gives the "localhost" of a target; "" as a rule."""
    if target.rpartition(":")[0] != "localhost":
        return ""
    try:
        found = socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)
    except OSError:  # the name is unknown, so it has no address
        return ""
    hosts = (str(where[0]) for *_, where in found)
    return next((host for host in hosts if not _is_loopback(host)), "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
