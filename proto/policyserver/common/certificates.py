"""The check of a server's certificate and key, before it listens."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import NoReturn

from policyserver.common.listening import InsecureListenError, read_file, read_secret

_NOT_YET_VALID, _EXPIRED = 9, 10
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of x509_vfy.h."""
_FAULTS = {"KEY_VALUES_MISMATCH": "which belongs to another one", "": "which holds none", "NO_START_LINE": "which holds none"}
"""What OpenSSL's reasons for refusing a key mean."""
_ROUNDS = 10
"""More messages than a handshake has."""


def check_certificate(certificate_file: Path, key_file: Path, prefix: str = "") -> float | None:
    """Refuse files that are no certificate or no key, a key of another certificate, and a certificate that is not valid now.

    Args:
        certificate_file: The chain (PEM), the server's own certificate first.
        key_file: Its private key (PEM), without a passphrase.
        prefix: What the names of the settings `tls_certificate_file` and `tls_key_file` begin with, for errors.

    Returns:
        When the certificate ends, seconds since 1970 (UTC); None if OpenSSL's client refuses it for another reason than its dates.

    Raises:
        InsecureListenError: Names the setting.
    """
    certificate_key, key_key = f"{prefix}tls_certificate_file", f"{prefix}tls_key_file"
    read_secret(key_file, key_key)
    chain = read_file(certificate_file, certificate_key).decode("ascii", "replace")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust in the certificate itself: who issued it is for the clients to judge
    try:
        client.load_verify_locations(cadata=chain)
    except (ssl.SSLError, ValueError) as error:
        raise InsecureListenError(
            f"{certificate_key}: expected a certificate chain (PEM), received {certificate_file}, which holds none"
        ) from error
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate_file, key_file, password=lambda: _refuse_passphrase(key_file, key_key))
    except (ssl.SSLError, OSError) as error:
        reason = str(getattr(error, "reason", None) or "")
        fault = _FAULTS.get(reason) or f"which OpenSSL refuses: {reason.replace('_', ' ').lower() or error}"
        raise InsecureListenError(
            f"{key_key}: expected the private key (PEM) of the certificate in {certificate_file}, received {key_file}, {fault}"
        ) from error
    try:
        return _shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
            text = f"{certificate_key}: expected a certificate that is valid now, received {certificate_file}: {error.verify_message}"
            raise InsecureListenError(text) from error
        return None


def _refuse_passphrase(key_file: Path, key_key: str) -> NoReturn:
    raise InsecureListenError(f"{key_key}: expected a key without a passphrase, received {key_file}, which has one")


def _shake_hands(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> float:
    """Let a client shake hands with a server in memory: only a handshake makes `ssl` compare a certificate with the clock.

    Returns:
        When the certificate ends, seconds since 1970 (UTC).

    Raises:
        ssl.SSLCertVerificationError: The client refuses the certificate.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_ROUNDS):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    found = client.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(found["notAfter"])))
