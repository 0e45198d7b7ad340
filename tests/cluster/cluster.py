"""A Ray cluster on test hosts, and a daemon that joins it."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.hosts import NETWORK, Host, HostProcess

PORT = 6379
HEAD = f"{NETWORK}.1:{PORT}"
OF_RAY_START = {"RAY_worker_niceness": "0", "GRPC_EXPERIMENTS": "-event_engine_listener,-event_engine_client", "RAY_AUTH_MODE": "token"}
RUN = "/tmp/run"
_TLS = "/tmp/tls"
CERTIFICATE, KEY, TOKEN = f"{_TLS}/certificate", f"{_TLS}/key", f"{_TLS}/token"


class Cluster:
    """The first host is Ray's head, without a serving actor; each other one has room for so many."""

    def __init__(self, hosts: Sequence[Host], *, actors_on_each: int = 1) -> None:
        self.hosts = hosts
        self.environment = {**OF_RAY_START, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._rooms = f'--resources={{"serving": {actors_on_each}}}'
        self._write_tls()
        hosts[0].start_ray("--head", f"--port={PORT}", "--num-cpus=2", env=self.environment)
        for host in hosts[1:]:
            self.join(host)

    def join(self, host: Host) -> None:
        """Start a node that serves."""
        host.start_ray(f"--address={HEAD}", "--num-cpus=2", self._rooms, env=self.environment)

    def _write_tls(self) -> None:
        names = ",".join(f"IP:{host.address}" for host in self.hosts)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        outputs = ["-subj", "/CN=policy", "-addext", f"subjectAltName={names}", "-keyout", "-", "-out", "-"]
        made = subprocess.run([*command, *outputs], capture_output=True, check=True, timeout=60.0).stdout
        end = b"-----END PRIVATE KEY-----\n"
        key, _, certificate = made.partition(end)
        token = secrets.token_hex(16).encode()
        for host in self.hosts:
            host.write(CERTIFICATE, certificate)
            host.write(KEY, key + end)
            host.write(TOKEN, token)


class ClusterDaemon:
    """`policy-server serve` on the first host."""

    def __init__(self, cluster: Cluster, settings: str, *options: str) -> None:
        self.host = cluster.hosts[0]
        self.host.write("/tmp/server.toml", settings.encode())
        program = str(Path(sys.executable).with_name("policy-server"))
        arguments = ["serve", "--config", "/tmp/server.toml", "--run_folder", RUN, "--ray.address", HEAD, *options]
        self.process: HostProcess = self.host.start(
            "sh", "-c", 'exec "$0" "$@" > /tmp/out 2>&1', program, *arguments, env=cluster.environment
        )

    def text(self) -> str:
        """Return what it wrote."""
        out = self.host.path("/tmp/out")
        return out.read_text(errors="replace") if out.exists() else ""

    def wait_for(self, text: str, timeout_s: float = 180.0) -> float:
        """Wait until it writes some text; returns the seconds that took."""
        began_s = time.monotonic()
        while text not in self.text():
            assert self.process.poll() is None, f"ended with {self.process.poll()}:\n{self.text()}"
            assert time.monotonic() - began_s < timeout_s, f"no {text!r} within {timeout_s} s:\n{self.text()}"
            time.sleep(0.05)
        return time.monotonic() - began_s
