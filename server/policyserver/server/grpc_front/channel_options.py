"""The options with which the gRPC server takes connections."""

from __future__ import annotations

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a thief of half the calls
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),  # of gRPC's probes of the bandwidth, which hold those of keepalive up; a minute else
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 900),  # a client may probe each second, less some jitter; gRPC allows 5 minutes
    ("grpc.max_metadata_size", 8 * 1024),
)


def channel_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Return them for messages of at most so many bytes."""
    return [*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes), ("grpc.max_send_message_length", max_message_bytes)]
