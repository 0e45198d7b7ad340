"""A Ray cluster on test hosts, and a daemon that joins it."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.guide import option_of_ray_start
from tests.cluster.hosts import NETWORK, Host, HostProcess

PORT = 6379
_PLAYER = Path(__file__).with_name("player.py")
_PROGRAM = str(Path(sys.executable).with_name("policy-server"))
SETTINGS = """
[listen]
address = "node:9900"
tls_certificate_file = "/tmp/tls/certificate"
tls_key_file = "/tmp/tls/key"
token_file = "/tmp/tls/token"
[ray]
serving_resources = {serving = 1}
[algorithm.env_runners]
num_env_runners = 2
"""
HEAD = f"{NETWORK}.1:{PORT}"
OF_RAY_START = {"RAY_worker_niceness": "0", "GRPC_EXPERIMENTS": "-event_engine_listener,-event_engine_client"}
"""What `ray start` is given of variables, authentication apart."""
GIVES_UP_SOON = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
"""For the head: Ray gives a silent node up after some 10 s in place of a minute."""
RUN = "/tmp/run"
_PROGRAM = str(Path(sys.executable).with_name("policy-server"))
ACTOR = "ray::ExternalEnvRunner"
"""What a serving actor's process is called."""
_TLS = "/tmp/tls"
CERTIFICATE, KEY, TOKEN = f"{_TLS}/certificate", f"{_TLS}/key", f"{_TLS}/token"


class Cluster:
    """The first host is Ray's head, without a serving actor; each other one has room for so many, unless other hosts are named."""

    def __init__(
        self,
        hosts: Sequence[Host],
        *,
        actors_on_each: int = 1,
        serving: Sequence[Host] | None = None,
        learners: Sequence[Host] = (),
        options: Mapping[str, Sequence[str]] | None = None,
        authentication: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        of_head: Mapping[str, str] | None = None,
    ) -> None:
        """Start a node on each host.

        Args:
            hosts: The machines.
            actors_on_each: Serving actors for which a node has room.
            serving: The hosts that serve; all but the first and the learners else.
            learners: The hosts that learn.
            options: Further options of `ray start`, by the name of the host.
            authentication: Variables by which Ray's processes and the daemon know each other; a new token else.
            variables: Further variables of all of them.
            of_head: Further variables of the head's.
        """
        self.hosts = hosts
        self.environment = {**OF_RAY_START, **(authentication or with_token()), **(variables or {})}
        self._of_head = dict(of_head or {})
        self._learners = learners
        self._options = options or {}
        self._serving = [host for host in hosts[1:] if host not in learners] if serving is None else serving
        self._rooms = f'--resources={{"serving": {actors_on_each}}}'
        write_secrets(hosts, CERTIFICATE, KEY, TOKEN)
        self.start_head()
        with ThreadPoolExecutor() as starting:
            list(starting.map(self.join, hosts[1:]))

    def start_head(self, *options: str) -> None:
        """Start the head."""
        self.hosts[0].start_ray("--head", f"--port={PORT}", "--num-cpus=2", *options, env={**self.environment, **self._of_head})

    def join(self, host: Host, *, without: Sequence[str] = ()) -> None:
        """Start another node, without some of the variables that it is to have."""
        rooms = [self._rooms] if host in self._serving else [option_of_ray_start("learner")] if host in self._learners else []
        env = {name: value for name, value in self.environment.items() if name not in without}
        host.start_ray(f"--address={HEAD}", "--num-cpus=2", *rooms, *self._options.get(host.name, ()), env=env)

    def set_up_again(self, host: Host) -> None:
        """Switch a host on that was switched off, and bring it the certificate, the key and the token of the others."""
        host.switch_on()
        (like, *_) = (other for other in self.hosts if other is not host)
        for file in (CERTIFICATE, KEY, TOKEN):
            host.write(file, like.path(file).read_bytes())


def with_token() -> dict[str, str]:
    """Return what lets processes into a cluster of its own: a new token."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def write_secrets(hosts: Sequence[Host], certificate_file: str, key_file: str, token_file: str) -> None:
    """Write a certificate for all hosts' addresses, its key and a token on each of them."""
    names = ",".join(f"IP:{host.address}" for host in hosts)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    outputs = ["-subj", "/CN=policy", "-addext", f"subjectAltName={names}", "-keyout", "-", "-out", "-"]
    made = subprocess.run([*command, *outputs], capture_output=True, check=True, timeout=60.0).stdout
    end = b"-----END PRIVATE KEY-----\n"
    key, _, certificate = made.partition(end)
    token = secrets.token_hex(16).encode()
    for host in hosts:
        host.write(certificate_file, certificate)
        host.write(key_file, key + end)
        host.write(token_file, token)


class ClusterDaemon:
    """`policy-server serve` on the first host, or on another."""

    def __init__(self, cluster: Cluster, settings: str, *options: str, host: Host | None = None, run_folder: str = RUN) -> None:
        self.host = host or cluster.hosts[0]
        command = serve_command(self.host, settings, *options, run_folder=run_folder)
        self.host.path("/tmp/out").unlink(missing_ok=True)  # of one before it
        self.process = self.host.start("sh", "-c", 'exec "$0" "$@" > /tmp/out 2>&1', *command, env=cluster.environment)

    @classmethod
    def of_shell(cls, host: Host, script: str, env: Mapping[str, str]) -> ClusterDaemon:
        """Start it by a script of bash."""
        daemon = cls.__new__(cls)
        daemon.host = host
        daemon.process = host.start("bash", "-ec", f"exec > /tmp/out 2>&1\n{script}", env=env)
        return daemon

    def addresses(self) -> list[str]:
        """Return where the serving actors listen, as it logged that."""
        return self.text().partition("serving on ")[2].partition(", policy version")[0].split(", ")

    def text(self) -> str:
        """Return what it wrote."""
        out = self.host.path("/tmp/out")
        return out.read_text(errors="replace") if out.exists() else ""

    def wait_for(self, text: str, timeout_s: float = 300.0) -> float:
        """Wait until it writes some text; returns the seconds that took."""
        began_s = time.monotonic()
        while text not in self.text():
            assert self.process.poll() is None, f"ended with {self.process.poll()}:\n{self.text()}"
            assert time.monotonic() - began_s < timeout_s, f"no {text!r} within {timeout_s} s:\n{self.text()}"
            time.sleep(0.05)
        return time.monotonic() - began_s


class Player:
    """Episodes that are played on a host."""

    def __init__(self, host: Host, address: str, count: int, *, spread: bool = True) -> None:
        """Begin to play so many episodes at once; the number names the player, too."""
        self._output = host.path(f"/tmp/player-{count}")
        arguments = [address, str(count), f"/tmp/player-{count}", *([] if spread else ["alone"])]
        self.process: HostProcess = host.start(sys.executable, str(_PLAYER), *arguments)

    def newest(self) -> dict[str, Any]:
        """Return what it wrote last; nothing at first."""
        assert self.process.poll() is None
        whole = self._output.read_text().rpartition("\n")[0] if self._output.exists() else ""  # the rest is being written
        return (
            dict(json.loads(whole.rpartition("\n")[2]))
            if whole
            else {"steps": 0, "version": 0, "errors": {}, "runners": [], "longest_s": 0.0}
        )

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20.0)


def waits_until_ended(processes: Sequence[psutil.Process], timeout_s: float) -> float:
    """Wait until processes have ended; returns the seconds that took."""
    began_s = time.monotonic()
    while any(map(_runs, processes)):
        assert time.monotonic() - began_s < timeout_s, f"not ended within {timeout_s} s: {processes}"
        time.sleep(0.02)
    return time.monotonic() - began_s


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def until(condition: Callable[[], Any], timeout_s: float, daemon: ClusterDaemon) -> float:
    """Wait for something; returns the seconds that took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < timeout_s, f"not within {timeout_s} s:\n{daemon.text()}"
        time.sleep(0.05)
    return time.monotonic() - began_s


def ctl(host: Host, *arguments: str, timeout_s: float = 120.0) -> dict[str, Any]:
    """Ask the daemon of the run folder on a host by `policy-server ctl`; AssertionError, with what was said, if it refuses."""
    return dict(json.loads(host.run(_PROGRAM, "ctl", *arguments, "--run_folder", RUN, "--json", timeout_s=timeout_s)))


def status(host: Host) -> dict[str, Any]:
    """Return what `ctl status` says there."""
    return ctl(host, "status")


def serve_command(host: Host, settings: str, *options: str, run_folder: str = RUN) -> list[str]:
    """Write the settings and return the command that serves by them."""
    host.write("/tmp/server.toml", settings.encode())
    return [_PROGRAM, "serve", "--config", "/tmp/server.toml", "--run_folder", run_folder, "--ray.address", HEAD, *options]
