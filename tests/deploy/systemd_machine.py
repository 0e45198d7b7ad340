"""A real systemd, as process 1 of namespaces of its own, on an overlay of this machine's files: what it writes is gone with it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from tests.services import MissingService, program, wait_until

_SYSTEMD = Path("/lib/systemd/systemd")
_CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
_ITS_OWN = ("/dev", "/run", "/tmp")
_SPACES = ("--pid", "--mount", "--uts", "--ipc", "--cgroup", "--net")
_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/shm dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console
pivot_root . mnt
umount -l mnt
ip link set lo up
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=unshare "$2" --system --unit=basic.target --log-target=null --show-status=false
"""


class SystemdMachine:
    """One boot, ended with the `with` block. The environment of this Python is at /opt/policy-server, as the units have it."""

    def __init__(self, missing_service: MissingService) -> None:
        for name in ("unshare", "nsenter", "pivot_root", "ip"):
            program(name, missing_service)
        if any(map(Path(sys.prefix).is_relative_to, _ITS_OWN)):
            missing_service(f"the machine that boots has a folder of its own in place of the one where {sys.prefix} lies: clone elsewhere")
        if not _SYSTEMD.exists():
            missing_service("systemd is not installed; .ci/install-services installs it")
        cgroups = next((each for each in _CGROUPS if (each / "cgroup.procs").exists()), None)
        if os.geteuid() != 0 or cgroups is None:
            missing_service("booting systemd in namespaces takes root and cgroup v2")
        self._name = f"policy-server-test-{os.getpid()}"
        self._cgroup = cgroups / self._name
        self._folder = Path(tempfile.mkdtemp(prefix="systemd-"))

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _boot(self) -> None:
        self._cgroup.mkdir()
        unshare = " ".join(("unshare", *_SPACES, "--fork", "--kill-child"))
        enter = f'echo $$ > {self._cgroup}/cgroup.procs; exec {unshare} bash -c "$BOOT" boot {self._folder} {_SYSTEMD}'
        quiet = subprocess.DEVNULL
        self._outer = subprocess.Popen(
            ["bash", "-c", enter],
            env=os.environ | {"BOOT": _BOOT},
            stdin=quiet,
            stdout=quiet,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        wait_until(lambda: self._outer.poll() is not None or self._init(), "systemd to be process 1")
        if self._outer.poll() is not None:
            self._fail(self._outer.stderr.read().decode() if self._outer.stderr else "")
        wait_until(lambda: self.run("systemctl", "is-active", "basic.target", check=False) == "active", "systemd to have booted", 120.0)
        (python, environment) = Path(sys.executable).resolve(), Path(sys.prefix)
        self.run("mkdir", "-p", "/etc/policy-server")
        self.run("ln", "-sfn", str(environment), "/opt/policy-server")
        self._python = python.parents[1]

    def _fail(self, text: str) -> NoReturn:
        raise AssertionError(f"systemd did not boot: {text}")

    def _init(self) -> int:
        """Return the process id, here, of process 1 there; 0 before it is systemd."""
        found = subprocess.run(["pgrep", "-P", str(self._outer.pid), "-x", "systemd"], capture_output=True, text=True, check=False).stdout
        return int(found) if found.strip() else 0

    def run(self, *command: str, check: bool = True, text: str | None = None) -> str:
        """Run a command in there as root; return what it printed."""
        inside = ["nsenter", "-t", str(self._init()), *_SPACES, "--root", "--wd", *command]
        done = subprocess.run(inside, input=text, capture_output=True, text=True, timeout=400, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Write a file in there."""
        self.run("bash", "-c", f"mkdir -p $(dirname {path}); cat > {path}", text=text)

    def install(self, unit: Path, drop_in: str = "") -> None:
        """Install a unit as it is, with what lets its user reach a Python that lies in root's home, and what a test adds."""
        self.write(f"/etc/systemd/system/{unit.name}", unit.read_text(encoding="utf-8"))
        python = f"ProtectHome=tmpfs\nBindReadOnlyPaths={self._python}\n" if self._python.is_relative_to("/root") else ""
        self.write(f"/etc/systemd/system/{unit.name}.d/test.conf", f"[Service]\n{python}{drop_in}")
        self.run("systemctl", "daemon-reload")

    def property(self, unit: str, name: str) -> str:
        """Return what `systemctl show` says."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit)

    def main_process(self, unit: str) -> int:
        """Return the process id, here, of a service's main process."""
        inside = self.property(unit, "MainPID")
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                ids = re.search(r"^NSpid:\t(.+)$", status.read_text(), re.MULTILINE)
            except OSError:
                continue
            if ids and ids[1].split()[-1] == inside and self._name in (status.parent / "cgroup").read_text():
                return int(status.parent.name)
        raise AssertionError(f"{unit} has no main process")

    def journal(self, unit: str) -> str:
        """Return the newest of what a service wrote."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-n", "200", "-u", unit)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._outer.send_signal(signal.SIGKILL)  # and with it, by --kill-child, process 1, with which the kernel ends all others
        self._outer.wait()
        if self._outer.stderr:
            self._outer.stderr.close()
        wait_until(lambda: not (self._cgroup / "cgroup.procs").read_text() and self._remove_cgroups(), "the machine's processes to end")
        shutil.rmtree(self._folder)

    def _remove_cgroups(self) -> bool:
        for folder in sorted((each for each in self._cgroup.rglob("*") if each.is_dir()), reverse=True):
            try:
                folder.rmdir()
            except OSError:
                return False
        self._cgroup.rmdir()
        return True
