"""Hosts for tests on one machine, each with a network, processes, a name and temporary files of its own.

A network namespace alone is no host: a unix socket is found by its path, so a link of the driver's connects "across machines". So each host
has a mount namespace, too, with file systems of its own over the folders in which Ray and the daemon keep sockets, shared memory and runs.
What is installed on this machine is installed on every host.

One folder, `SHARED`, is the same on all hosts, as one of a network is, and outlives each of them.

The hosts' network is a bridge in a namespace that has nothing else, so nothing of it is seen outside. A host is the first process of its
process namespace, which ends with this process, however that ends, and takes all others of the host along.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

NETWORK = "10.77.0"
PRIVATE_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")
"""Where Ray, the daemon and the tests write."""
SHARED = "/mnt"
_NEEDED = ("unshare", "nsenter", "ip", "bridge", "mount")
_INIT = "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print('ready', flush=True); sys.stdin.read()"
"""A host's first process: it lives until its standard input ends, and no dead child of the host's stays with it."""
_START_S = 20.0


def why_not() -> str:
    """Say why no hosts can be made here; empty if they can."""
    if missing := [name for name in _NEEDED if shutil.which(name) is None]:
        return f"test hosts need {', '.join(missing)} (util-linux, iproute2)"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "mount", "-t", "tmpfs", "tmpfs", "/tmp"],
        capture_output=True,
        text=True,
        timeout=_START_S,
    )
    if tried.returncode:
        return f"namespaces can't be made here, which root may on most machines: {tried.stderr.strip()}"
    return ""


class _Namespaces:
    """Namespaces, and the process that holds them."""

    def __init__(self, *kinds: str) -> None:
        command = ["unshare", *(f"--{kind}" for kind in kinds), "--pid", "--fork", "--mount-proc", "--kill-child"]
        self._unshare = subprocess.Popen(
            [*command, sys.executable, "-ISc", _INIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._unshare.stdout is not None
        if self._unshare.stdout.readline() != b"ready\n":
            self.close()
            raise OSError("a test host did not start")
        (init,) = psutil.Process(self._unshare.pid).children()
        self.pid: int = init.pid
        self._enter = ["nsenter", "--target", str(self.pid), *(f"--{kind}" for kind in kinds), "--pid"]

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs another one inside."""
        return [*self._enter, "--", *arguments]

    def call(self, *arguments: str) -> str:
        """Run a command inside and return what it writes; AssertionError if it fails."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60.0, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def has_ended(self) -> bool:
        """Whether they were closed."""
        return self._unshare.poll() is not None

    def close(self) -> None:
        """End all processes inside, and with them the namespaces. A second call does nothing."""
        if self._unshare.poll() is None:
            os.kill(getattr(self, "pid", self._unshare.pid), signal.SIGKILL)  # the first process inside; the kernel kills the others
            self._unshare.wait()
        for stream in (self._unshare.stdin, self._unshare.stdout):
            assert stream is not None
            stream.close()


class Host:
    """One host. Made by `hosts`."""

    def __init__(self, number: int, bridge: _Namespaces, shared: Path) -> None:
        self.name = f"host{number}"
        self.address = f"{NETWORK}.{number}"
        self._bridge, self._shared = bridge, shared
        self._port = f"port{number}"
        self._started: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_", "GRPC_"))},
            "HOME": "/tmp/home",
            "TMPDIR": "/tmp",
        }
        self.switch_on()

    def switch_on(self) -> None:
        """Begin, or begin anew after `close`: then as a machine whose own folders are empty."""
        self._namespaces = _Namespaces("net", "mount", "uts")
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        inside = self._namespaces
        inside.call("mount", "--bind", str(self._shared), SHARED)  # before the folder that it lies in is hidden
        for folder in PRIVATE_FOLDERS:
            if Path(folder).is_dir():
                inside.call("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", folder)
        inside.call("mkdir", "/tmp/home")
        inside.call("hostname", self.name)
        subprocess.run(self._bridge.command("ip", "link", "delete", self._port), capture_output=True, timeout=_START_S)  # of one before
        self._bridge.call("ip", "link", "add", self._port, "type", "veth", "peer", "name", "eth0")
        # By the number of a process as this machine has it, so not from the bridge's process namespace.
        subprocess.run(
            ["nsenter", "--target", str(self._bridge.pid), "--net", "ip", "link", "set", "eth0", "netns", str(self._namespaces.pid)],
            check=True,
        )
        self._bridge.call("ip", "link", "set", self._port, "master", "bridge", "up")
        inside.call("ip", "link", "set", "lo", "up")
        inside.call("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        inside.call("ip", "link", "set", "eth0", "up")
        inside.call("ip", "route", "add", "default", "via", f"{NETWORK}.254")

    def path(self, inside: str) -> Path:
        """Return where this machine sees a file of the host."""
        return Path(f"/proc/{self._namespaces.pid}/root{inside}")

    def write(self, inside: str, content: bytes, mode: int = 0o600) -> None:
        """Write a file of the host's."""
        file = self.path(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)

    def replace(self, inside: Path, content: bytes) -> None:
        """Have another file in a file's place, on this host alone."""
        self.write(f"/tmp/in_place_of/{inside.name}", content)
        self._namespaces.call("mount", "--bind", f"/tmp/in_place_of/{inside.name}", str(inside))

    def run(self, *command: str, env: Mapping[str, str] | None = None, timeout_s: float = 300.0) -> str:
        """Run a command to its end and return what it writes; AssertionError if it fails."""
        done = self.complete(*command, env=env, timeout_s=timeout_s)
        assert done.returncode == 0, f"{self.name}: {' '.join(command)}: status {done.returncode}\n{done.stdout}"
        return done.stdout

    def complete(self, *command: str, env: Mapping[str, str] | None = None, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its two outputs come as one."""
        return subprocess.run(
            self._namespaces.command(*command),
            env={**self._environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            cwd="/",
        )

    def start(self, *command: str, env: Mapping[str, str] | None = None, stdout: IO[Any] | int | None = None) -> HostProcess:
        """Start a command that goes on; it ends with the host at the latest."""
        process = subprocess.Popen(
            self._namespaces.command(*command),
            env={**self._environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            cwd="/",
        )
        self._started.append(process)
        return HostProcess(process)

    def start_ray(self, *options: str, env: Mapping[str, str]) -> None:
        """Start a Ray node, of a cluster by `--address=...`, or the head by `--head`."""
        ray = str(Path(sys.executable).with_name("ray"))
        limits = (
            "--disable-usage-stats",
            "--object-store-memory=200000000",
            *(["--include-dashboard=false"] if "--head" in options else []),
        )
        self.run(ray, "start", *options, f"--node-ip-address={self.address}", *limits, env=env)

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the host's processes whose command line has some text."""
        namespace = os.readlink(f"/proc/{self._namespaces.pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == namespace and name in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def cut(self) -> None:
        """Cut the host off from the network: nothing arrives, and nobody is told."""
        self._bridge.call("ip", "link", "set", self._port, "nomaster")

    def heal(self) -> None:
        """Undo `cut`."""
        self._bridge.call("ip", "link", "set", self._port, "master", "bridge")

    def part_from(self, other: Host) -> None:
        """Let nothing pass between two hosts, while each reaches all others. Of one pair at a time."""
        for host in (self, other):
            self._bridge.call("bridge", "link", "set", "dev", host._port, "isolated", "on")

    def unite_with(self, other: Host) -> None:
        """Undo `part_from`."""
        for host in (self, other):
            self._bridge.call("bridge", "link", "set", "dev", host._port, "isolated", "off")

    def close(self) -> None:
        """Switch the host off: its processes are killed, and others hear nothing, not of their ends either. A second call does nothing."""
        if not self._namespaces.has_ended:
            with contextlib.suppress(AssertionError):  # its network may not be set up yet
                self.cut()
        self._namespaces.close()
        for entering in self._started:
            entering.wait(_START_S)
        self._started.clear()


class HostProcess:
    """A process on a host, which was started here."""

    def __init__(self, entering: subprocess.Popen[bytes]) -> None:
        self._entering = entering

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself."""
        for inside in psutil.Process(self._entering.pid).children():
            inside.send_signal(number)

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        return self._entering.poll()

    def wait(self, timeout_s: float) -> int:
        """Wait for its end, and return the exit status."""
        return self._entering.wait(timeout_s)


@contextlib.contextmanager
def hosts(count: int) -> Iterator[Sequence[Host]]:
    """Make hosts that reach each other, and switch all of them off at the end of the block."""
    with contextlib.ExitStack() as ending:
        shared = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="hosts-")))
        bridge = _Namespaces("net")
        ending.callback(bridge.close)
        bridge.call("ip", "link", "add", "bridge", "type", "bridge")
        bridge.call("ip", "link", "set", "bridge", "up")
        made = []
        for number in range(1, count + 1):
            made.append(Host(number, bridge, shared))
            ending.callback(made[-1].close)
        yield made
