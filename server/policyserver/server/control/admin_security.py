"""Who may steer a server over the network: callers with TLS and a token that is not the clients'."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

import grpc

from policyserver.common.certificates import check_certificate
from policyserver.common.listening import InsecureListenError, read_file, read_secret, read_token
from policyserver.server.config.admin_config import AdminConfig
from policyserver.server.config.serving_config import ListenConfig

_KEYS = ("tls_certificate_file", "tls_key_file", "token_file")


@dataclass(frozen=True)
class NetworkAccess:
    """An address of the admin service, and what it takes to get in."""

    address: str
    credentials: grpc.ServerCredentials
    token: str
    name: str
    """Who calls with the token."""
    certificate_ends_s: float | None
    """When the certificate ends, seconds since 1970 (UTC)."""

    def has_token(self, metadata: dict[str, str | bytes]) -> bool:
        """Whether a call brought the token."""
        return hmac.compare_digest(str(metadata.get("authorization", "")).encode(), f"Bearer {self.token}".encode())


def network_access(admin: AdminConfig, listen: ListenConfig) -> NetworkAccess | None:
    """Read what protects the admin service's address; None where it has none.

    Raises:
        InsecureListenError: A file is missing or can't be used, or the token is the clients'.
    """
    if admin.address is None:
        return None
    certificate, key, token_file = admin.tls_certificate_file, admin.tls_key_file, admin.token_file
    if certificate is None or key is None or token_file is None:
        missing = " and ".join(f"admin.{name}" for name in _KEYS if getattr(admin, name) is None)
        raise InsecureListenError(
            f"admin.address: any user and program that reaches {admin.address} could steer the server, so {missing} must be given; without "
            "an address only the server's own user can"
        )
    ends_s = check_certificate(certificate, key, "admin.")
    token = read_token(token_file, "admin.token_file")
    if listen.token_file is not None and read_token(listen.token_file, "listen.token_file") == token:
        raise InsecureListenError(
            f"admin.token_file: expected a token of its own in {token_file}, received that of listen.token_file: clients may not steer"
        )
    credentials = grpc.ssl_server_credentials(
        [(read_secret(key, "admin.tls_key_file"), read_file(certificate, "admin.tls_certificate_file"))]
    )
    return NetworkAccess(admin.address, credentials, token, token_file.name, ends_s)
