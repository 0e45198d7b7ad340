"""Refuses a Ray cluster that lets anyone in who reaches it: authentication is by a token, with or without Ray's TLS."""

from __future__ import annotations

import logging
import os

import grpc

from policyserver.common.settings import SettingsError
from policyserver.server.daemon.daemon_errors import DaemonError
from policyserver.server.daemon.ray_head import probe
from policyserver.server.daemon.ray_tls import AUTHORITY, has_tls

logger = logging.getLogger(__name__)

_KEY = "ray.address"


def refuse_insecure(address: str, *, insecure: bool) -> bool:
    """Refuse a cluster that lets anyone in who reaches it, unless that is wanted.

    Args:
        address: HOST:PORT of the cluster's head.
        insecure: Whether it is wanted.

    Returns:
        Whether it asks for a token.

    Raises:
        SettingsError: A call without a token was answered, or a certificate can't be read.
        DaemonError: No head answers there, with the TLS that the environment asks for; it may later, so that no setting is blamed.
    """
    code = probe(address)
    is_head = code in (grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED)
    if has_tls():
        if is_head:  # Ray's TLS is mutual: a program without a certificate of the cluster's is not let in
            if code == grpc.StatusCode.OK:
                text = (
                    "has Ray's TLS and no token: each node has an agent besides, by HTTP without TLS, that takes requests of anyone who "
                    "reaches it"
                )
                if not insecure:
                    raise SettingsError(
                        _KEY,
                        "",
                        f"the Ray cluster at {address} {text}; give all its nodes RAY_AUTH_MODE=token, too, or set ray.insecure = true",
                    )
                logger.warning("the Ray cluster at %s %s; joined all the same (ray.insecure)", address, text)
            return code == grpc.StatusCode.UNAUTHENTICATED
        raise DaemonError(
            f"{_KEY}: expected a Ray cluster's head at {address} with Ray's TLS, for RAY_USE_TLS is set here, received {code.name} from "
            f"there; start the cluster with it, with certificates of one authority that name each node's address, or unset it "
            f"({AUTHORITY} is {os.environ[AUTHORITY]})"
        )
    if not is_head:
        raise DaemonError(
            f"{_KEY}: expected a Ray cluster's head at {address}, received {code.name} from there; `ray start --head` starts one, and a "
            "cluster with Ray's TLS needs RAY_USE_TLS=1 here, too"
        )
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return True
    text = "lets anyone who reaches it run code on all its nodes, for it was started without RAY_AUTH_MODE=token"
    if not insecure:
        raise SettingsError(_KEY, "", f"the Ray cluster at {address} {text}; start it with that, or set ray.insecure = true")
    logger.warning("the Ray cluster at %s %s; joined all the same (ray.insecure)", address, text)
    return False
