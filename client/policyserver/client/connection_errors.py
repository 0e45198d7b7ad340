"""Why a stream ended -> the error that its callers get, and whether waiting helps.

gRPC reports a TLS port that receives plaintext as "Socket closed", and other mismatches in the words of its TLS library. So after a failed
attempt the client tries a TLS handshake, which shows what the port speaks, and carries no step or token.
"""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import grpc

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

_TIMEOUT_S = 2.0
_UNIX = "unix:"
_ANOTHER_HOST = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH of OpenSSL
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
"""What OpenSSL makes of an answer that is no TLS record."""


def certificates_context(file: Path | str) -> ssl.SSLContext:
    """Read the certificates that sign a server's.

    Raises:
        ValueError: the file cannot be read, or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=file)
    except ssl.SSLError as error:
        raise ValueError(f"tls_ca_file: expected certificates in PEM form in {file}, received none: {error.reason or error}") from error
    except OSError as error:
        raise ValueError(f"tls_ca_file: expected a readable file, received {file}: {error.strerror}") from error


def encryption_trouble(target: str, ca_file: Path | str | None) -> EncryptionError | None:
    """Ask a server that could not be connected to how it is encrypted.

    Args:
        target: a gRPC target.
        ca_file: the client's `tls_ca_file`.

    Returns:
        What is wrong and what to do, in one line; None if encryption is not to blame, or nothing answers.
    """
    try:
        wrong = _of_plaintext(target) if ca_file is None else _of_tls(target, ca_file)
    except (OSError, ValueError):
        return None
    return EncryptionError(wrong, field="tls_ca_file") if wrong else None


def _of_plaintext(target: str) -> str:
    """Return what is wrong where plaintext was tried."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _shake_hands(target, context)
    return (
        f"{target} speaks TLS and this client plaintext: set ClientConfig(tls_ca_file=...) to the certificates that sign the server's, and "
        "token_file to its token if it wants one"
    )


def _of_tls(target: str, ca_file: Path | str) -> str:
    """Return what is wrong where TLS was tried; nothing if the handshake succeeds here."""
    context = certificates_context(ca_file)
    try:
        _shake_hands(target, context)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code not in _ANOTHER_HOST:
            return (
                f"tls_ca_file: {ca_file} does not vouch for the certificate of {target}: {error.verify_message}; give the file with the "
                "certificate that signed the server's, or renew that"
            )
        return (
            f"the certificate of {target} is for {_names(target, context)}, not for {_host(target)}: connect by a name that it has, or "
            "give the server one for this name (listen.tls_certificate_file)"
        )
    except ssl.SSLError as error:
        if error.reason in _NO_TLS:
            return (
                f"{target} speaks plaintext and this client TLS: leave tls_ca_file out for a server of this machine, or give the server a "
                "certificate (listen.tls_certificate_file and tls_key_file)"
            )
    return ""


def _names(target: str, context: ssl.SSLContext) -> str:
    """Return the names that a trusted certificate is for."""
    context.check_hostname = False
    certificate: Any = _shake_hands(target, context)
    return ", ".join(f"{kind} {name}" for kind, name in certificate.get("subjectAltName", ())) or "no name"


def _shake_hands(target: str, context: ssl.SSLContext) -> Any:
    """Do a TLS handshake with a server. Returns its certificate, decoded if it was verified.

    Raises:
        OSError: it failed; ssl.SSLError is one.
    """
    context.set_alpn_protocols(["h2"])  # without it a gRPC server hangs up
    with _connect(target) as plain, context.wrap_socket(plain, server_hostname=_host(target)) as encrypted:
        return encrypted.getpeercert()


def _connect(target: str) -> socket.socket:
    if not target.startswith(_UNIX):
        return socket.create_connection((_host(target), int(target.rpartition(":")[2])), _TIMEOUT_S)
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    plain.settimeout(_TIMEOUT_S)
    try:
        plain.connect(target.removeprefix(_UNIX))
    except OSError:
        plain.close()
        raise
    return plain


def _host(target: str) -> str:
    """Return the name that the certificate has to have; gRPC takes this one for a unix socket."""
    return "localhost" if target.startswith(_UNIX) else target.rpartition(":")[0].strip("[]")


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
