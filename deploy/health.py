"""Health checks of the containers: exit status 0 when well, 1 when not.

health.py server ADDRESS RUN      a policy server is at ADDRESS, it is that of the run, and its health service says SERVING
health.py pipeline STORE RUN      the pipeline has recorded its nodes within the last half minute
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

_TIMEOUT_S = 3.0
_SILENCE_S = 30.0


def server(address: str, run: str) -> str:
    """Return what is wrong with the server of `run` at `address` (host:port or unix:path), "" when nothing is."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from policyserver.common.channels import open_channel
    from policyserver.v1 import policy_service_pb2, policy_service_pb2_grpc

    with open_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
            service = policy_service_pb2_grpc.PolicyServiceStub(channel)
            found = service.GetServerInfo(policy_service_pb2.GetServerInfoRequest(), timeout=_TIMEOUT_S).run
        except grpc.RpcError as error:
            return f"{address}: {error.code().name}"
    if found != run:
        return f"{address}: expected the server of run {run}, received that of {found}"
    return "" if answer.status == health_pb2.HealthCheckResponse.SERVING else f"{address}: not serving"


def pipeline(store: str, run: str) -> str:
    """Return what is wrong with the pipeline that records `run` into `store`, "" when nothing is."""
    from policyserver.monitoring.store.reader import StoreReader

    try:
        reader = StoreReader(Path(store))
    except FileNotFoundError as error:
        return str(error)
    newest = reader.newest("node", run, limit=1)
    reader.close()
    silence_s = time.time() - newest[0]["time_ns"] / 1e9 if newest else float("inf")
    return "" if silence_s < _SILENCE_S else f"run {run}: nothing recorded for {silence_s:.0f} s"


def main(arguments: list[str]) -> int:
    """Run one check and write what is wrong, if anything is."""
    match arguments:
        case ["server", address, run]:
            wrong = server(address, run)
        case ["pipeline", store, run]:
            wrong = pipeline(store, run)
        case _:
            wrong = f"expected: server ADDRESS RUN, or: pipeline STORE RUN; received {arguments}"
    sys.stderr.write(f"{wrong}\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
