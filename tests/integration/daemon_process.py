"""A `policy-server serve` process for tests that kill it, or parts of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.live_server import wait_until_serving
from tests.ports import listener


class DaemonProcess:
    """One process, killed at the end of the `with` block if the test did not end it."""

    def __init__(self, run_folder: Path, address: str, *options: str, python: str | Path = sys.executable) -> None:
        self.address = address
        self.instance_id = uuid.uuid4().hex
        self.output = run_folder.with_name(f"{run_folder.name}-{time.monotonic_ns()}.out")
        command = [
            str(Path(python).with_name("policy-server")),
            "serve",
            "--run_folder",
            str(run_folder),
            "--listen.address",
            address,
            "--instance_id",
            self.instance_id,
        ]
        self.began = time.monotonic()
        with self.output.open("wb") as out:
            self.process = subprocess.Popen([*command, *options], stdout=out, stderr=subprocess.STDOUT, start_new_session=True)

    def wait_ready(self, timeout_s: float = 200.0) -> float:
        """Wait until this very server says SERVING; returns the seconds since the process began."""
        if not wait_until_serving(self.process, self.address, self.instance_id, timeout_s - (time.monotonic() - self.began)):
            raise AssertionError(f"not ready, status {self.process.poll()}:\n{self.text()}")
        return time.monotonic() - self.began

    def actor(self, number: int = 1) -> psutil.Process:
        """Return a serving actor, of several by its number."""
        port = int(self.address.rpartition(":")[2]) + number - 1
        found = listener(self.process.pid, port)
        assert found is not None, f"no child process listens on port {port}"
        return found

    def terminate(self, timeout_s: float = 120.0) -> int:
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
