"""The gRPC channel of a client: its options, its encryption and its token."""

from __future__ import annotations

from pathlib import Path

import grpc

from policyserver.client.config import ClientConfig
from policyserver.client.connection_errors import certificates_context
from policyserver.client.errors import InsecureTargetError
from policyserver.common.channels import open_channel
from policyserver.common.endpoints import is_local, strays


def check_security(target: str, config: ClientConfig) -> None:
    """Refuse to send steps or tokens in plain text over a network.

    Raises:
        InsecureTargetError: the target is off the machine, and the certificates' or the token's file is not given.
    """
    missing = [name for name in ("tls_ca_file", "token_file") if getattr(config, name) is None]
    stray = strays(target)
    if missing and (stray or not is_local(target)):
        but = f", but {stray} by this machine's hosts file" if stray else ""
        raise InsecureTargetError(
            f"{' and '.join(missing)}: expected both tls_ca_file and token_file for {target}, which is neither a loopback address nor a "
            f"unix socket{but}, received None; plaintext never leaves the machine"
        )


def make_channel(target: str, config: ClientConfig) -> grpc.Channel:
    """Open the channel, encrypted if there is a certificates' file. gRPC connects when the first call asks it to.

    Raises:
        ValueError: the certificates' file cannot be read, or holds none.
    """
    options = [
        ("grpc.keepalive_time_ms", round(1000 * config.keepalive_time_s)),
        ("grpc.keepalive_timeout_ms", round(1000 * config.keepalive_timeout_s)),
        # gRPC's probes of the bandwidth, of which one keeps those of keepalive from being sent, have a minute for their answers else.
        ("grpc.http2.ping_timeout_ms", round(1000 * config.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", -1),  # rows are split before they get here
        ("grpc.max_receive_message_length", config.max_reply_bytes),
        ("grpc.enable_retries", 0),  # the client repeats rows itself
        # gRPC's name for how long one attempt may take: a machine that is gone answers none, and episodes there are given up after one.
        ("grpc.min_reconnect_backoff_ms", round(1000 * config.keepalive_timeout_s)),
        ("grpc.initial_reconnect_backoff_ms", round(1000 * config.reconnect_backoff_initial_s)),
        ("grpc.max_reconnect_backoff_ms", round(1000 * config.reconnect_backoff_max_s)),
        ("grpc.use_local_subchannel_pool", 1),  # clients of one process share nothing
    ]
    if config.tls_ca_file is None:
        return open_channel(target, options)
    certificates_context(config.tls_ca_file)  # refuses a file without a certificate, with which gRPC would try endlessly
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
