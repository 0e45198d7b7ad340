"""Refuses a Ray cluster that lets anyone in who reaches it: authentication is by a token, with or without Ray's TLS."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import grpc

from policyserver.common.channels import open_channel
from policyserver.common.settings import SettingsError
from policyserver.server.daemon.daemon_errors import DaemonError

logger = logging.getLogger(__name__)

_KEY = "ray.address"
_PROBE_S = 5.0
_PROBE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""The call that says which Ray a head runs. It takes an empty message, and a cluster with tokens refuses it without one."""
_CERTIFICATE, _PRIVATE_KEY, _AUTHORITY = "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"


def refuse_insecure(address: str, *, insecure: bool) -> None:
    """Refuse a cluster that lets anyone in who reaches it, unless that is wanted.

    Args:
        address: HOST:PORT of the cluster's head.
        insecure: Whether it is wanted.

    Raises:
        SettingsError: A call without a token was answered, or a certificate can't be read.
        DaemonError: No head answers there, with the TLS that the environment asks for; it may later, so that no setting is blamed.
    """
    credentials = tls_credentials()
    code = _ask_without_token(address, credentials)
    is_head = code in (grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED)
    if credentials is not None:
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
            return
        raise DaemonError(
            f"{_KEY}: expected a Ray cluster's head at {address} with Ray's TLS, for RAY_USE_TLS is set here, received {code.name} from "
            f"there; start the cluster with it, with certificates of one authority that name each node's address, or unset it "
            f"({_AUTHORITY} is {os.environ[_AUTHORITY]})"
        )
    if not is_head:
        raise DaemonError(
            f"{_KEY}: expected a Ray cluster's head at {address}, received {code.name} from there; `ray start --head` starts one, and a "
            "cluster with Ray's TLS needs RAY_USE_TLS=1 here, too"
        )
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return
    text = "lets anyone who reaches it run code on all its nodes, for it was started without RAY_AUTH_MODE=token"
    if not insecure:
        raise SettingsError(_KEY, "", f"the Ray cluster at {address} {text}; start it with that, or set ray.insecure = true")
    logger.warning("the Ray cluster at %s %s; joined all the same (ray.insecure)", address, text)


def has_tls() -> bool:
    """Tell whether Ray's TLS is switched on for this process, as Ray reads that."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def tls_credentials() -> grpc.ChannelCredentials | None:
    """Return what Ray's TLS needs of this process, as its variables say; None without it.

    Raises:
        SettingsError: A variable is missing, or its file can't be read.
    """
    if not has_tls():
        return None
    return grpc.ssl_channel_credentials(_content(_AUTHORITY), _content(_PRIVATE_KEY), _content(_CERTIFICATE))


def _content(variable: str) -> bytes:
    file = os.environ.get(variable, "")
    if not file:
        raise SettingsError(_KEY, "", f"expected the environment variable {variable} to name a file, for RAY_USE_TLS is set, received none")
    try:
        return Path(file).read_bytes()
    except OSError as error:
        text = f"expected the environment variable {variable} to name a file that can be read, received {file}: {error.strerror}"
        raise SettingsError(_KEY, "", text) from error


def _ask_without_token(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    with open_channel(address, [("grpc.enable_http_proxy", 0)], credentials) as channel:
        try:
            channel.unary_unary(_PROBE, bytes, bytes)(b"", timeout=_PROBE_S)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK
