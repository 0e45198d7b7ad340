"""What became of a stream that ended -> the error that its callers get, and whether waiting helps."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc

from policyserver.client.encryption_trouble import encryption_trouble
from policyserver.client.errors import EncryptionError
from policyserver.common.errors import (
    AuthenticationError,
    HandshakeError,
    PolicyServerError,
    ServerEndedError,
    ServerUnavailableError,
    WireError,
    from_rpc_error,
)

__all__ = ["REFUSALS", "refusal_of", "trouble_of"]

_log = logging.getLogger(__name__)

REFUSALS = (HandshakeError, AuthenticationError, EncryptionError, ServerEndedError)
"""Troubles that waiting does not help."""


def refusal_of(trouble: PolicyServerError, before: PolicyServerError | None) -> PolicyServerError | None:
    """Return why waiting is pointless now, if it is: a server that ended for good stays so until one answers in its place."""
    if isinstance(trouble, REFUSALS):
        return trouble
    return before if isinstance(before, ServerEndedError) else None


def trouble_of(error: Exception, target: str, ca_file: Path | str | None, *, was_open: bool) -> PolicyServerError:
    """Say why a stream ended.

    Args:
        error: what ended it.
        target: where it went.
        ca_file: the client's `tls_ca_file`.
        was_open: rows had gone over it; if not, encryption may be to blame.
    """
    if isinstance(error, PolicyServerError):
        return error
    if isinstance(error, grpc.RpcError):
        trouble = from_rpc_error(error)
        never_there = not was_open and trouble.code is grpc.StatusCode.UNAVAILABLE and not trouble.reason
        return (encryption_trouble(target, ca_file) if never_there else None) or trouble
    if isinstance(error, WireError):
        _log.error("%s: malformed message: %s", target, error)
        return ServerUnavailableError(f"malformed message: {error}")
    _log.error("%s: the reader failed", target, exc_info=error)  # a mistake of ours: the callers get it, the log has its traceback
    return ServerUnavailableError(f"the client failed: {error!r}")
