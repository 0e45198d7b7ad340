"""The gRPC channel of a client: its options, its encryption, its token, and what is asked on it beside the stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import grpc

from policyserver.client.config import ClientConfig
from policyserver.client.connection_errors import certificates_context
from policyserver.client.errors import InsecureTargetError
from policyserver.client.messages import to_info, to_stats
from policyserver.client.server_info import ServerInfo
from policyserver.client.stream import Stub
from policyserver.common.channels import open_channel
from policyserver.common.endpoints import is_local, strays
from policyserver.common.errors import PolicyServerError, from_rpc_error
from policyserver.common.server_stats import ServerStats
from policyserver.v1 import policy_service_pb2 as pb


def check_security(target: str, config: ClientConfig) -> None:
    """Refuse to send steps or tokens in plain text over a network.

    Raises:
        InsecureTargetError: the target is off the machine, and the certificates' or the token's file is not given.
    """
    missing = [name for name in ("tls_ca_file", "token_file") if getattr(config, name) is None]
    if missing and (not is_local(target) or strays(target)):
        raise InsecureTargetError(
            f"{' and '.join(missing)}: expected both tls_ca_file and token_file for {target}, which is neither a loopback address nor a "
            f"unix socket{_but(strays(target))}, received None; plaintext never leaves the machine"
        )


def _but(host: str) -> str:
    return f", but {host} by this machine's hosts file" if host else ""


def make_channel(target: str, config: ClientConfig) -> grpc.Channel:
    """Open the channel, encrypted if there is a certificates' file. gRPC connects when the first call asks it to.

    Raises:
        ValueError: the certificates' file cannot be read, or holds none.
    """
    options = [
        ("grpc.keepalive_time_ms", round(1000 * config.keepalive_time_s)),
        ("grpc.keepalive_timeout_ms", round(1000 * config.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", -1),  # rows are split before they get here
        ("grpc.max_receive_message_length", config.max_reply_bytes),
        ("grpc.enable_retries", 0),  # ours are the rows in flight
        ("grpc.initial_reconnect_backoff_ms", round(1000 * config.reconnect_backoff_initial_s)),
        ("grpc.max_reconnect_backoff_ms", round(1000 * config.reconnect_backoff_max_s)),
        ("grpc.use_local_subchannel_pool", 1),  # clients of one process share nothing
    ]
    if config.tls_ca_file is None:
        return open_channel(target, options)
    certificates_context(config.tls_ca_file)  # a file without a certificate is refused here; gRPC would try for ever
    return open_channel(target, options, grpc.ssl_channel_credentials(Path(config.tls_ca_file).read_bytes()))


def authorization(config: ClientConfig) -> tuple[tuple[str, str], ...]:
    """Make the metadata of each call: the token, if there is one.

    Raises:
        ValueError: the token's file cannot be read, or has no single printable line.
    """
    if config.token_file is None:
        return ()
    try:
        content = Path(config.token_file).read_bytes()
    except OSError as error:
        raise ValueError(f"token_file: expected a readable file, received {config.token_file}: {error.strerror}") from error
    token = content.decode("ascii", "replace").strip()
    if not token or not token.isprintable() or not token.isascii() or " " in token:
        raise ValueError(f"token_file: expected one line of printable ASCII without spaces in {config.token_file}, received something else")
    return (("authorization", f"Bearer {token}"),)


class Availability(Protocol):
    """A connection, as far as one that asks beside its stream knows it. Under the client's lock."""

    def check(self) -> None:
        """Raise what makes asking pointless."""

    def unavailable(self, timeout_s: float) -> PolicyServerError:
        """Make the error of a wait for a connection that was in vain."""


class Queries:
    """Unary calls of one connection, from any thread."""

    def __init__(
        self, connection: Availability, lock: threading.Lock, stub: Stub, metadata: tuple[tuple[str, str], ...], timeout_s: float
    ) -> None:
        """Prepare.

        Args:
            connection: knows whether asking makes sense.
            lock: the client's.
            stub: the service.
            metadata: of each call.
            timeout_s: longest time to wait for an answer, connecting included, seconds.
        """
        self._connection = connection
        self._lock = lock
        self._stub = stub
        self._metadata = metadata
        self._timeout_s = timeout_s

    def info(self) -> ServerInfo:
        """Ask what the server is.

        Raises:
            ServerUnavailableError: no answer within the connect timeout.
        """
        return to_info(self._ask(self._stub.GetServerInfo, pb.GetServerInfoRequest()))

    def stats(self) -> ServerStats:
        """Ask how serving and learning go.

        Raises:
            ServerUnavailableError: no answer within the connect timeout.
        """
        return to_stats(self._ask(self._stub.GetStats, pb.GetStatsRequest()))

    def _ask(self, method: Callable[..., Any], request: Any) -> Any:
        connection = self._connection
        with self._lock:
            connection.check()
        try:
            return method(request, timeout=self._timeout_s, metadata=self._metadata, wait_for_ready=True)
        except (grpc.RpcError, ValueError) as error:
            with self._lock:
                connection.check()
                if isinstance(error, ValueError) or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise connection.unavailable(self._timeout_s) from error
            raise from_rpc_error(error) from error
