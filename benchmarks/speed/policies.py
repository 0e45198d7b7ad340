"""What further policies cost: two that divide the episodes, one that shadows, and the way back to a checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed.case import Contender
from benchmarks.speed.contenders import loaded, run_load
from benchmarks.speed.servers import Servers
from benchmarks.windows import Figures, Window
from policyserver.common.channels import open_channel
from policyserver.v1 import admin_service_pb2 as pb
from policyserver.v1 import admin_service_pb2_grpc as pb_grpc
from tests.live_server import Serving
from tests.services import wait_until

ROLL_BACKS = 5
"""Of one window."""
HALVES = "shares = { live = 0.5, other = 0.5 }"
SHADOW = 'shadow = "other"'


def beside_another(load: str, options: Mapping[str, Any], config: str, traffic: str, net: str) -> Contender:
    """Put a load on a server that has a checkpoint of the same net as the policy `other`, and `traffic` for episodes that name none."""

    @contextmanager
    def contender(servers: Servers) -> Iterator[Window]:
        saved = _saved(servers.running(config))
        with_other = f'{config}\n[policies]\nload = {{ other = "{saved["path"]}" }}\n[traffic]\n{traffic}\n'
        with loaded(load, options, with_other, net)(servers) as window:
            yield window

    return contender


def roll_back(config: str, options: Mapping[str, Any] | None = None) -> Contender:
    """Go back to a checkpoint some times, from the call to its answer; with `options`, while threads step their episodes and PPO trains."""

    @contextmanager
    def contender(servers: Servers) -> Iterator[Window]:
        server = servers.running(config)
        number = _saved(server)["number"]

        def window(seconds: float) -> Figures:
            busy = threading.Thread(target=run_load, args=(server, "threads", options, seconds)) if options else None
            if busy is not None:
                busy.start()
                time.sleep(seconds / 2)  # until all threads play
            with open_channel(f"unix:{(server.run_folder / 'ray').resolve() / 'admin.sock'}", []) as channel:
                took_ms = sorted(_rolled_back_ms(pb_grpc.AdminServiceStub(channel), number) for _ in range(ROLL_BACKS))
            if busy is not None:
                busy.join()
                server.let_learner_rest()
            return {"p50_ms": took_ms[ROLL_BACKS // 2], "p99_ms": took_ms[-1], "max_ms": took_ms[-1], "learner": "busy" if busy else "idle"}

        yield window

    return contender


def _rolled_back_ms(admin: Any, number: int) -> float:
    began = time.perf_counter()
    admin.RollBack(pb.RollBackRequest(number=number), timeout=60.0)
    took_ms = (time.perf_counter() - began) * 1e3
    wait_until(lambda: not admin.Status(pb.StatusRequest()).HasField("rolling_back_to"), "the learner, to follow", timeout_s=60.0)
    return took_ms


def _saved(server: Serving) -> dict[str, Any]:
    """Save and pin a checkpoint."""
    command = [
        str(Path(sys.executable).with_name("policy-server")),
        "ctl",
        "save",
        "--pin",
        "--json",
        "--run_folder",
        str(server.run_folder),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    checkpoint: dict[str, Any] = json.loads(done.stdout)["checkpoint"]
    return checkpoint
