"""A `policy-server serve` process for tests that kill it, or parts of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.ports import DIRECT


class DaemonProcess:
    """One process, killed at the end of the `with` block if the test did not end it."""

    def __init__(self, run_folder: Path, address: str, *options: str) -> None:
        self.address = address
        self.output = run_folder.with_name(f"{run_folder.name}-{time.monotonic_ns()}.out")
        command = [
            str(Path(sys.executable).with_name("policy-server")),
            "serve",
            "--run_folder",
            str(run_folder),
            "--listen.address",
            address,
        ]
        self.began = time.monotonic()
        with self.output.open("wb") as out:
            self.process = subprocess.Popen([*command, *options], stdout=out, stderr=subprocess.STDOUT, start_new_session=True)

    def wait_ready(self, timeout_s: float = 90.0) -> float:
        """Wait until the health service says SERVING; returns the seconds since the process began."""
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
        deadline = self.began + timeout_s
        with grpc.insecure_channel(self.address, [*options, *DIRECT]) as channel:
            while time.monotonic() < deadline:
                try:
                    request = health_pb2.HealthCheckRequest()
                    if health_pb2_grpc.HealthStub(channel).Check(request, timeout=1.0, wait_for_ready=True).status == 1:
                        return time.monotonic() - self.began
                except grpc.RpcError:
                    if self.process.poll() is not None:
                        break
        raise AssertionError(f"not ready, status {self.process.poll()}:\n{self.text()}")

    def actor(self, number: int = 1) -> psutil.Process:
        """Return a serving actor, of several by its number."""
        port = int(self.address.rpartition(":")[2]) + number - 1
        for process in psutil.Process(self.process.pid).children(recursive=True):
            if any(at.status == psutil.CONN_LISTEN and at.laddr.port == port for at in process.net_connections("tcp")):
                return process
        raise AssertionError(f"no child process listens on port {port}")

    def terminate(self, timeout_s: float = 30.0) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """Send SIGKILL to the daemon alone, as the kernel would when memory is short."""
        self.process.kill()
        self.process.wait()

    def text(self) -> str:
        """Return what the process wrote so far."""
        return self.output.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if error is not None:
            sys.stderr.write(self.text())  # pytest shows it with the failure
