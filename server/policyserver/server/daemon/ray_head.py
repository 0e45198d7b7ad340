"""Asks the head of a Ray cluster by its own gRPC calls: within seconds, and without joining the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from policyserver.common.channels import open_channel
from policyserver.server.daemon.ray_tls import tls_credentials

Metadata = tuple[tuple[str, str], ...]
"""What a call carries beside its message: the token."""

_ANSWER_S = 5.0
_MAX_ANSWER_BYTES = 64 * 2**20
"""A node takes some kilobytes."""
_NODES = "/ray.rpc.NodeInfoGcsService/"
_PROBE = f"{_NODES}CheckAlive"
"""The call that says which Ray a head runs. It takes an empty message, and a cluster with tokens refuses it without one."""


def probe(address: str, metadata: Metadata = ()) -> grpc.StatusCode:
    """Ask a head which Ray it runs, and return how that ended.

    Raises:
        SettingsError: A certificate of Ray's TLS can't be read.
    """
    return _ask(address, _PROBE, b"", metadata)[0]


def alive_nodes_of(address: str, metadata: Metadata) -> list[Any] | None:
    """List the nodes of a cluster that are alive, as messages `GcsNodeInfo`; None where its head does not say.

    Raises:
        SettingsError: A certificate of Ray's TLS can't be read.
    """
    from ray.core.generated import gcs_pb2, gcs_service_pb2

    wanted = gcs_service_pb2.GetAllNodeInfoRequest(state_filter=gcs_pb2.GcsNodeInfo.ALIVE)
    code, answer = _ask(address, f"{_NODES}GetAllNodeInfo", wanted.SerializeToString(), metadata)
    if code != grpc.StatusCode.OK:
        return None
    nodes: Iterable[Any] = gcs_service_pb2.GetAllNodeInfoReply.FromString(answer).node_info_list
    return [node for node in nodes if node.state == gcs_pb2.GcsNodeInfo.ALIVE]


def free_resources_of(address: str, metadata: Metadata) -> dict[bytes, dict[str, float]] | None:
    """Return what is free on each node of a cluster, by the node's id; None where its head does not say.

    Raises:
        SettingsError: A certificate of Ray's TLS can't be read.
    """
    from ray.core.generated import gcs_service_pb2

    code, answer = _ask(address, "/ray.rpc.NodeResourceInfoGcsService/GetAllAvailableResources", b"", metadata)
    if code != grpc.StatusCode.OK:
        return None
    free = gcs_service_pb2.GetAllAvailableResourcesReply.FromString(answer).resources_list
    return {node.node_id: dict(node.resources_available) for node in free}


def _ask(address: str, call: str, message: bytes, metadata: Metadata) -> tuple[grpc.StatusCode, bytes]:
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES)]
    with open_channel(address, options, tls_credentials()) as channel:
        try:
            answer: bytes = channel.unary_unary(call, bytes, bytes)(message, timeout=_ANSWER_S, metadata=metadata)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code, b""
    return grpc.StatusCode.OK, answer
