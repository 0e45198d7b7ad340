"""What documents do with grpcurl, for tests: `python -m tests.grpcurl -plaintext -d JSON HOST:PORT SERVICE/METHOD` prints the answer."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import grpc
from google.protobuf import json_format

from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc
from tests.ports import DIRECT


def main() -> None:
    """Make one unary call."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-d", dest="body", required=True)
    parser.add_argument("address")
    parser.add_argument("method")
    options = parser.parse_args()
    service, _, method = options.method.partition("/")
    assert service == pb.DESCRIPTOR.services_by_name["PolicyService"].full_name
    request = json_format.Parse(options.body, getattr(pb, f"{method}Request")())
    with grpc.insecure_channel(options.address, DIRECT) as channel:
        stub: Any = pb_grpc.PolicyServiceStub(channel)
        sys.stdout.write(f"{json_format.MessageToJson(getattr(stub, method)(request, timeout=60.0))}\n")


if __name__ == "__main__":
    main()
