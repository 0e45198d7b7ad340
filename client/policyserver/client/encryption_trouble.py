"""Why a connection failed, where the reason is that client and server do not agree about encryption.

gRPC says "Socket closed" of a TLS port that is spoken to in plaintext, and of the other mismatches what its library of ciphers says. So
after a failed attempt the port is asked: a TLS handshake shows what speaks there, and no step or token goes over it.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from policyserver.client.errors import EncryptionError

__all__ = ["certificates_context", "encryption_trouble"]

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
        What is wrong and what to do, in one line; None if encryption is not to blame, or nobody answers.
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
    """Return whom a certificate that is trusted is for."""
    context.check_hostname = False
    certificate: Any = _shake_hands(target, context)
    return ", ".join(f"{kind} {name}" for kind, name in certificate.get("subjectAltName", ())) or "nobody"


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
