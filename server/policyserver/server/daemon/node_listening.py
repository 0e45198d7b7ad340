"""Whether serving actors can listen on each node of a cluster where they may be put, before one is put there."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable
from typing import NamedTuple

from policyserver.common.listening import InsecureListenError
from policyserver.server.config.node_address import on_this_node
from policyserver.server.config.serving_config import ListenConfig
from policyserver.server.daemon.asked_nodes import ask_nodes
from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.ray_nodes import Place, fitting_nodes
from policyserver.server.grpc_front.listen_address import check_free
from policyserver.server.grpc_front.listen_security import check_listen, token

logger = logging.getLogger(__name__)


class Looked(NamedTuple):
    """What a node found."""

    address_fault: str
    """Why it can't listen there; empty if it can."""
    file_fault: str
    """What is wrong with its certificate, key or token; empty if nothing is."""
    token_digest: bytes
    """By which its token is compared with another node's."""


def check_listening(place: Place, listen: ListenConfig, *, secrets_are_sent: bool) -> None:
    """Refuse nodes that lack the address to listen on, or whose certificate, key or token can't be used.

    `check_nodes` comes before: the nodes must have this package, of this version.

    Args:
        place: What a serving actor needs of a node.
        listen: Where it is to listen, with paths that each node looks up for itself.
        secrets_are_sent: Whether it takes certificate, key and token from the daemon instead.

    Raises:
        DaemonError: A node has no such address, or a file of it is missing, can't be used, or others can read it: it names the node, and
            the file. That may be mended there at any time, so that no setting is blamed.
    """
    salt = secrets.token_bytes(16)
    here = _digest(salt, listen)
    for name, found in ask_nodes(fitting_nodes(place), _looking(listen, salt, secrets_are_sent), "whether it can listen"):
        if fault := found.address_fault or found.file_fault:
            keep_away = f"keep serving actors from node {name} by ray.serving_resources or ray.serving_labels"
            raise DaemonError(f"node {name}: {fault}; mend that there, or {keep_away}")
        if not secrets_are_sent and not hmac.compare_digest(found.token_digest, here):
            logger.warning(
                "listen.token_file: node %s has another token than this machine: a client is let in by some serving actors and refused by "
                "others; give all of them one",
                name,
            )


def _looking(listen: ListenConfig, salt: bytes, secrets_are_sent: bool) -> Callable[[], Looked]:
    """Return the function that a node calls; it travels by value, and what it calls by name."""

    def look() -> Looked:
        return look_here(listen, salt, secrets_are_sent)

    return look


def look_here(listen: ListenConfig, salt: bytes, secrets_are_sent: bool) -> Looked:
    """Look whether this machine can listen. Nothing stays bound.

    Args:
        listen: Where, and with which files.
        salt: Of the token's digest.
        secrets_are_sent: Whether the files are not looked at.
    """
    from policyserver.server.runner.following import node_ip

    address_fault = file_fault = ""
    digest = b""
    try:
        _check_address(on_this_node(listen.address, node_ip()))
    except OSError as error:
        address_fault = f"listen.address: {str(error.strerror or error).removeprefix('listen.address: ')}"
    if not secrets_are_sent:
        try:
            check_listen(listen)
            digest = _digest(salt, listen)
        except InsecureListenError as error:
            file_fault = str(error)
    return Looked(address_fault, file_fault, digest)


def _check_address(address: str) -> None:
    """Refuse an address that this machine lacks; whether a port of it is free, an actor sees that finds the first one."""
    try:
        check_free(f"{address.rpartition(':')[0]}:0")
    except OSError as error:
        text = f"expected an address of its own, or node:PORT, which stands for that, received {address}: {error.strerror}"
        raise OSError(error.errno, text) from error


def _digest(salt: bytes, listen: ListenConfig) -> bytes:
    return hmac.digest(salt, (token(listen) or "").encode(), hashlib.sha256)
