"""Hosts with a Ray cluster, a server on it, and programs of this folder that play on a host beside it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.folders import ROOT
from tests.cluster.cluster import CERTIFICATE, RUN, SETTINGS, TOKEN, Cluster, ClusterDaemon
from tests.cluster.hosts import Host, HostProcess, hosts

_TWO_ACTORS = "num_env_runners = 2"
_STORE = "store.sqlite"
_STOP_S = 60.0


class Bed:
    """A cluster whose first host has the daemon and whose others have a serving actor each, and one host more for clients."""

    def __init__(self, cluster: Cluster, clients: Host, settings: str, actors: int) -> None:
        """Start a server with so many actors and wait until it serves."""
        self.cluster, self.clients = cluster, clients
        for file in (CERTIFICATE, TOKEN):
            clients.write(file, cluster.hosts[0].path(file).read_bytes())
        self.settings = settings.replace(_TWO_ACTORS, f"num_env_runners = {actors}")
        self.daemon = ClusterDaemon(cluster, self.settings)
        self.daemon.wait_for("ready after")

    def copy_store(self, folder: Path) -> Path:
        """Copy what the server has recorded into a folder: SQLite would not open it where this machine sees it."""
        for file in self.cluster.hosts[0].path(RUN).glob(f"{_STORE}*"):
            shutil.copy(file, folder / file.name)
        return folder / _STORE

    def addresses_on(self, host: Host) -> list[str]:
        """Return where the actors of a host listen."""
        return [address for address in self.daemon.addresses() if address.partition(":")[0] == host.address]

    def play(self, module: str, *arguments: object) -> HostProcess:
        """Start a program of this folder on the host of the clients; what it says is in `said`."""
        command = [sys.executable, "-m", f"benchmarks.cluster.{module}", *map(str, arguments)]
        return self.clients.start("sh", "-c", 'exec "$0" "$@" >> /tmp/said 2>&1', *command)

    def said(self) -> str:
        """Return what the programs of the clients wrote."""
        file = self.clients.path("/tmp/said")
        return file.read_text(errors="replace") if file.exists() else ""

    def stop(self) -> None:
        """Stop the server as one should, so that all is recorded."""
        self.daemon.process.send_signal(signal.SIGTERM)
        self.daemon.process.wait(_STOP_S)


@contextlib.contextmanager
def bed(serving_hosts: int, actors: int, settings: str, environment: Mapping[str, str] | None = None) -> Iterator[Bed]:
    """Make the hosts, and let them end with the block.

    Args:
        serving_hosts: hosts with serving actors.
        actors: serving actors in all, as many on each.
        settings: of the server, beside `tests.cluster.cluster.SETTINGS`.
        environment: of all programs on the hosts, beside this process's own.
    """
    with _variables({"PYTHONPATH": str(ROOT), **(environment or {})}), hosts(serving_hosts + 2) as made:
        *of_ray, clients = made
        cluster = Cluster(of_ray, actors_on_each=actors // serving_hosts)
        yield Bed(cluster, clients, SETTINGS + settings, actors)


@contextlib.contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, which hosts take from this process when they are made."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
