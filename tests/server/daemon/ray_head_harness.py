"""A gRPC server that answers what is asked of a Ray cluster's head, with Ray's own messages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import grpc

from policyserver.server.daemon import ray_head
from tests.ports import DIRECT


class Head(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """What answers as a head does: with a token, a call without it is refused."""

    def __init__(self, token: str, nodes: Sequence[str]) -> None:
        self._token, self._nodes = token, nodes

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        carried = dict(handler_call_details.invocation_metadata or ())

        def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
            if self._token and carried.get("authorization") != f"Bearer {self._token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")
            return self._all_nodes() if method == "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo" else b""

        assert method.startswith("/ray.rpc.NodeInfoGcsService/")
        return grpc.unary_unary_rpc_method_handler(answer)

    def _all_nodes(self) -> bytes:
        from ray.core.generated import gcs_pb2, gcs_service_pb2

        nodes = [
            gcs_pb2.GcsNodeInfo(node_id=bytes.fromhex(node), node_manager_address=f"10.77.0.{number}")
            for number, node in enumerate(self._nodes, 1)
        ]
        answer: bytes = gcs_service_pb2.GetAllNodeInfoReply(node_info_list=nodes).SerializeToString()
        return answer


@contextlib.contextmanager
def head(*, token: str = "", nodes: Sequence[str] = (), credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """Run one, and yield its address.

    Args:
        token: What it asks for; nothing if it is empty.
        nodes: Ids of the nodes that are alive, in hexadecimal digits.
        credentials: Its TLS.
    """
    with ThreadPoolExecutor(2) as pool, mock.patch.object(ray_head, "_ANSWER_S", 60.0):
        server = grpc.server(pool, handlers=[Head(token, nodes)], options=DIRECT)
        where = "127.0.0.1:0"
        port = server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()
