"""Channels to a policy server. Traffic on this machine uses no proxy, whatever the environment says."""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from policyserver.common.endpoints import is_local


def direct_options(target: str) -> list[tuple[str, int | str]]:
    """Return the channel options that keep a local target's bytes on this machine; none for any other target.

    gRPC uses the proxy of `http_proxy` even for 127.0.0.1, unless `no_proxy` names it, and the proxy of GRPC_ADDRESS_HTTP_PROXY for the
    addresses that are listed beside it.
    """
    return [("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", "")] if is_local(target) else []


def open_channel(
    target: str, options: Iterable[tuple[str, int | str]] = (), credentials: grpc.ChannelCredentials | None = None
) -> grpc.Channel:
    """Open a channel, which connects when the first call asks it to.

    Args:
        target: a gRPC target, as `parse_address` makes it.
        options: channel options.
        credentials: encryption; None means plaintext.
    """
    options = [*options, *direct_options(target)]
    return grpc.insecure_channel(target, options) if credentials is None else grpc.secure_channel(target, credentials, options)
