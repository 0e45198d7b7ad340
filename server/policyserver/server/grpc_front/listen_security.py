"""Who may talk to the server: on this machine clients in plaintext, from elsewhere only those with TLS and the token."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from policyserver.common.certificates import check_certificate
from policyserver.common.listening import check_protection, read_file, read_secret, read_token
from policyserver.server.config.node_address import split_pattern
from policyserver.server.config.serving_config import ListenConfig

EXIT_INSECURE = 78
"""Exit status of a refusal to listen in plaintext (EX_CONFIG of sysexits.h)."""

_METADATA_KEY = "authorization"
_WITHOUT_TOKEN = ("/grpc.health.v1.Health/",)
"""Methods that need no token: a load balancer asks them."""


def check_listen(listen: ListenConfig) -> float | None:
    """Refuse an address beyond this machine without TLS and a token, and a certificate, a key or a token that can't be used.

    Returns:
        When the certificate ends, seconds since 1970 (UTC); None without one.

    Raises:
        InsecureListenError: Names the settings that are missing or wrong.
    """
    files = {f"listen.{name}": getattr(listen, name) for name in ("tls_certificate_file", "tls_key_file", "token_file")}
    network = split_pattern(listen.address)  # of which each node has another address, none of them local
    check_protection("listen.address", listen.address if network is None else f"0.0.0.0:{network[1]}", files)
    ends_s = None
    if listen.tls_certificate_file is not None and listen.tls_key_file is not None:
        ends_s = check_certificate(listen.tls_certificate_file, listen.tls_key_file, "listen.")
    token(listen)
    return ends_s


@dataclass(frozen=True)
class ListenSecrets:
    """What a server listens with."""

    certificate: bytes = b""
    """The chain (PEM); empty: plaintext."""
    key: bytes = field(default=b"", repr=False)
    """Its private key (PEM)."""
    token: str = field(default="", repr=False)
    """What clients must send; empty: nothing."""

    @classmethod
    def read(cls, listen: ListenConfig) -> ListenSecrets:
        """Read the configured files.

        Raises:
            InsecureListenError: As `check_listen`.
        """
        check_listen(listen)
        certificate = key = b""
        if listen.tls_certificate_file is not None and listen.tls_key_file is not None:
            key = read_secret(listen.tls_key_file, "listen.tls_key_file")
            certificate = read_file(listen.tls_certificate_file, "listen.tls_certificate_file")
        return cls(certificate, key, token(listen) or "")

    def credentials(self) -> grpc.ServerCredentials | None:
        """Return the TLS key and certificate chain; None without."""
        return grpc.ssl_server_credentials([(self.key, self.certificate)]) if self.certificate else None


def token(listen: ListenConfig) -> str | None:
    """Read the token that clients must send; None when none is configured.

    Raises:
        InsecureListenError: If the file can't be read, is empty, or others than its owner can read it.
    """
    return None if listen.token_file is None else read_token(listen.token_file, "listen.token_file")


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Answers UNAUTHENTICATED to calls without the right `authorization: Bearer TOKEN`."""

    def __init__(self, expected: str) -> None:
        """Keep the expected token."""
        self._expected = f"Bearer {expected}".encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Let the call through or replace its handler by a refusal of the same kind."""
        handler = await continuation(details)
        if handler is None or details.method.startswith(_WITHOUT_TOKEN) or self._accepts(details.invocation_metadata):
            return handler
        return _refusing(handler)

    def _accepts(self, metadata: Any) -> bool:
        given = next((value for key, value in metadata if key == _METADATA_KEY), "")
        return hmac.compare_digest(str(given).encode(), self._expected)


def _refusing(handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "expected metadata `authorization: Bearer TOKEN` with this server's token")

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(refuse, None, handler.response_serializer)  # nothing is read of what such a caller sends
