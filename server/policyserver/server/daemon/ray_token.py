"""Finds the token of this process as Ray does, and asks a cluster's head whether it is the cluster's: Ray's own errors do not say."""

from __future__ import annotations

import os

import grpc

from policyserver.common.settings import SettingsError
from policyserver.server.daemon.ray_head import Metadata, probe

_KEY = "ray.address"
_MODE, _TOKEN, _FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_DEFAULT_FILE = "~/.ray/auth_token"


def accepted_token(address: str) -> Metadata:
    """Return what a call to a cluster's head carries: this process's token, which the head takes. No error has the token in it.

    Args:
        address: HOST:PORT of the head of a cluster that asks for a token.

    Raises:
        SettingsError: This process is not told to have a token, has none, or has another one than the cluster.
    """
    mode = os.environ.get(_MODE, "")
    if mode.lower() != "token":
        raise SettingsError(
            _KEY,
            "",
            f"the Ray cluster at {address} asks for a token: expected the environment variable {_MODE} to be 'token' here, too, received "
            f"{repr(mode[:20]) if mode else 'none'}; set it, and {_TOKEN} or {_FILE}",
        )
    token = _own_token()
    if not token:
        raise SettingsError(
            _KEY,
            "",
            f"the Ray cluster at {address} asks for a token: expected one in {_place()}, which is missing, empty or can't be read; Ray "
            f"takes that of {_TOKEN}, of the file that {_FILE} names, or of {_DEFAULT_FILE}, in this order",
        )
    if not all(value.isascii() and value.isprintable() for _, value in token):  # which no call can carry
        raise _no_text()
    if probe(address, token) == grpc.StatusCode.UNAUTHENTICATED:
        raise SettingsError(
            _KEY,
            "",
            f"the token in {_place()} is not that of the Ray cluster at {address}; put the one there that `ray start --head` was given",
        )
    return token


def _own_token() -> Metadata:
    """Have Ray find the token: it keeps what it finds, as a start would."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    loader = AuthenticationTokenLoader.instance()
    try:
        if not loader.has_token(ignore_auth_mode=True):
            return ()
        return tuple(loader.get_token_for_http_header(ignore_auth_mode=True).items())
    except AuthenticationError:  # the file that a variable names is missing or empty
        return ()
    except UnicodeDecodeError:
        raise _no_text() from None  # Python's error has the token in it


def _no_text() -> SettingsError:
    return SettingsError(_KEY, "", f"expected a token of printable ASCII characters in {_place()}, received others")


def _place() -> str:
    """Say where Ray looks for the token here: at the first of the places that is named."""
    if os.environ.get(_TOKEN):
        return f"the environment variable {_TOKEN}"
    if file := os.environ.get(_FILE):
        return f"the file {file} ({_FILE})"
    return f"the file {_DEFAULT_FILE}"
