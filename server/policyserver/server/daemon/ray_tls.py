"""Ray's TLS, as the environment of this process asks for it."""

from __future__ import annotations

import os
from pathlib import Path

import grpc

from policyserver.common.settings import SettingsError

_KEY = "ray.address"
CERTIFICATE, PRIVATE_KEY, AUTHORITY = "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"


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
    return grpc.ssl_channel_credentials(_content(AUTHORITY), _content(PRIVATE_KEY), _content(CERTIFICATE))


def _content(variable: str) -> bytes:
    file = os.environ.get(variable, "")
    if not file:
        raise SettingsError(_KEY, "", f"expected the environment variable {variable} to name a file, for RAY_USE_TLS is set, received none")
    try:
        return Path(file).read_bytes()
    except OSError as error:
        text = f"expected the environment variable {variable} to name a file that can be read, received {file}: {error.strerror}"
        raise SettingsError(_KEY, "", text) from error
