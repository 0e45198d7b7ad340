"""A policy server as its own process, started by command, for as long as a test or a measurement takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc
from tests.commands import ctl
from tests.ports import DIRECT, free_address, listener

READY_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 180.0
REST_TIMEOUT_S = 120.0
REST_INTERVAL_S = 0.4
RESTING_CPU_PERCENT = 25.0


@dataclass(frozen=True)
class Serving:
    """A running server: its address, the seconds from the command to ready, the process that answers, the one that learns, its folder."""

    address: str
    startup_s: float
    process: psutil.Process
    daemon: psutil.Process
    run_folder: Path

    def cpu_s(self) -> float:
        """Return the processor time that the serving process has used, and those beside it if there are several."""
        name = self.process.name()
        beside = []
        for process in self.daemon.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                beside += [process.cpu_times()] if process.name() == name else []
        return float(sum(time.user + time.system for time in beside or [self.process.cpu_times()]))

    def memory_mb(self) -> float:
        """Return the resident memory of the serving process."""
        return float(self.process.memory_info().rss) / 1e6

    def let_learner_rest(self) -> None:
        """Return once the learner has finished with the steps that are left over from a load, or after two minutes."""
        deadline = time.monotonic() + REST_TIMEOUT_S
        while self._learner_works() and time.monotonic() < deadline:
            pass

    def _learner_works(self) -> bool:
        """Look for a moment; one that other programs keep from the processor works, too."""
        if self.daemon.cpu_percent(REST_INTERVAL_S) > RESTING_CPU_PERCENT:
            return True
        ended = ctl(self.run_folder, "status", "--json")
        return ended.returncode == 0 and json.loads(ended.stdout)["learning"] == "updating"


@contextmanager
def serving(config: str, folder: Path, *, unix: bool = False) -> Iterator[Serving]:
    """Run `policy-server serve` with a configuration in TOML; stop it with SIGTERM, as a service manager does.

    Args:
        config: The configuration.
        folder: Where the file, the log, the run folder and the socket lie.
        unix: Whether it listens on a unix socket in the folder; otherwise on a free port of 127.0.0.1.

    Raises:
        RuntimeError: The server ended before it was ready, or not with status 0; the text has the end of its log.
    """
    address = f"unix:{folder / 'socket'}" if unix else free_address()
    file, log = folder / "server.toml", folder / "server.out"
    file.write_text(config, encoding="utf-8")
    command = [str(Path(sys.executable).with_name("policy-server")), "serve", "--config", str(file)]
    instance_id = uuid.uuid4().hex
    options = ["--listen.address", address, "--run_folder", str(folder / "run"), "--instance_id", instance_id]
    with log.open("wb") as out:
        began = time.perf_counter()
        server = subprocess.Popen([*command, *options], stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            if not wait_until_serving(server, address, instance_id, READY_TIMEOUT_S):
                raise RuntimeError(f"the server was not ready, status {server.poll()}:\n{_tail(log)}")
            startup_s = time.perf_counter() - began
            yield Serving(address, startup_s, _listener(server.pid, address), psutil.Process(server.pid), folder / "run")
            server.send_signal(signal.SIGTERM)
            if server.wait(STOP_TIMEOUT_S) != 0:
                raise RuntimeError(f"expected the server to stop with status 0, it was {server.returncode}:\n{_tail(log)}")
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def wait_until_serving(server: subprocess.Popen[bytes], address: str, instance_id: str, timeout_s: float) -> bool:
    """Wait until the very server that was started, known by its id, says SERVING; False if it ends, or isn't ready in time."""
    deadline = time.monotonic() + timeout_s
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(address, [*options, *DIRECT]) as channel:
        health, service = health_pb2_grpc.HealthStub(channel), pb_grpc.PolicyServiceStub(channel)
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(grpc.RpcError):
                status = health.Check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True).status
                if (
                    status == health_pb2.HealthCheckResponse.SERVING
                    and service.GetServerInfo(pb.GetServerInfoRequest(), timeout=5.0).instance_id == instance_id
                ):
                    return True
            time.sleep(0.02)
    return False


def _listener(root: int, address: str) -> psutil.Process:
    """Return the process below `root` that listens on the address: with Ray that is an actor, not the command itself."""
    everyone = psutil.Process(root)
    if not address.startswith("unix:"):
        if (found := listener(root, int(address.rpartition(":")[2]))) is not None:
            return found
    else:
        for process in [everyone, *everyone.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if any(at.laddr == address.removeprefix("unix:") for at in process.net_connections("unix")):
                    return process
    raise RuntimeError(f"no process below {root} listens on {address}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])
