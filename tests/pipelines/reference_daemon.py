"""Stands in for `policy-server serve`: the reference server as a process that takes its time to stop.

python -m tests.pipelines.reference_daemon ADDRESS INSTANCE_ID STOP_S REWARD_ERROR
"""

from __future__ import annotations

import sys
import time

from tests.client.reference_server import ReferenceServer, Servicer


def main(address: str, instance_id: str, stop_s: str, reward_error: str) -> None:
    """Serve until standard input ends, and then take `stop_s` seconds, of which the handshake speaks, to write "stopped"."""
    servicer = Servicer()
    servicer.reward_error = float(reward_error)
    if instance_id:
        servicer.identity = {"instance_id": instance_id, "stop_timeout_s": float(stop_s) + 20.0}
    with ReferenceServer(servicer, socket=address):
        sys.stdin.read()
        time.sleep(float(stop_s))
    sys.stdout.write("stopped\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
