"""What the doctor looks at of the machine: limits, memory, space, clock, and what is installed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.metadata
import os
import re
import resource
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from policyserver.server.daemon.preflight import check_loopback
from policyserver.server.daemon.private_folder import short_temporary_folder
from policyserver.server.daemon.ray_start import OBJECT_STORE_BYTES
from policyserver.server.doctor.check import Check, DoubtError, SkippedError

_GIB = 2**30
_LEAST_FREE_BYTES = 16 * 2**20
"""Less is soon full: the store, the log and Ray's session take some megabytes at once."""
_LITTLE_FREE_BYTES = 2 * _GIB
_MEMORY_BYTES = {True: 2 * _GIB, False: _GIB}
"""What a server with a small net takes, by whether it learns."""
_OTHER_FILES = 512
"""Files and sockets that a process has open beside its clients' streams."""
_FEW_PROCESSES = 1000
"""Ray's processes have some hundreds of threads."""
_SHARED_MEMORY = Path("/dev/shm")
_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = {"max", "infinity"}
_TIME_ERROR = 5
"""What adjtimex(2) returns where nothing disciplines the clock."""
_TIMEX_BYTES = 512
"""More than any `struct timex` has."""
_DISTRIBUTION = "rllib-policy-server"


def checks(*, learns: bool, max_clients: int) -> list[Check]:
    """List what to look at, for a server that learns or one that does not."""
    common = [
        Check(
            "python packages",
            partial(_packages, ("ray", "torch")),
            '`pip install ".[server]"` in a clone of the repository, with the pip of this environment',
            30.0,
        ),
        Check(
            "open files",
            partial(_open_files, max_clients, raises_limit=learns),
            "`ulimit -n 65536`, or LimitNOFILE=65536 in the unit",
            settings=("listen.max_clients",),
        ),
        Check("processes", _processes, "`ulimit -u` higher, TasksMax= in the unit, or --pids-limit of the container"),
        Check("address space", _address_space, "`ulimit -v unlimited; ulimit -f unlimited`"),
        Check("memory", partial(_memory, _MEMORY_BYTES[learns]), "end other programs, or give the machine or the container more"),
        Check("clock", _clock, "switch time synchronization on: `timedatectl set-ntp true`, chrony, or on the host of a container"),
    ]
    of_ray = [
        Check("loopback", _loopback, "`ip link set lo up`"),
        Check("temporary folder", _temporary_folder, "set TMPDIR to a folder with a short path and some gigabytes to spare"),
        Check("shared memory", _shared_memory, "give the container more, e.g. `docker run --shm-size=1g`; Ray takes the disk instead"),
    ]
    return common + of_ray if learns else common


def space(folders: Mapping[str, Path], wanted_bytes: int = 0) -> list[Check]:
    """List a check for each file system that folders lie on, of which so many bytes should be free at least."""
    systems: dict[int, list[str]] = {}
    places: dict[int, Path] = {}
    for name, folder in folders.items():
        place = _existing(folder)
        device = place.stat().st_dev
        systems.setdefault(device, []).append(name)
        places.setdefault(device, place)
    advice = "make room, or name a folder on another file system; checkpoints.keep and [recording.retention] say how much is kept"
    wanted_bytes = max(wanted_bytes, _LITTLE_FREE_BYTES)
    return [
        Check(f"space for {', '.join(names)}", partial(_space, places[device], wanted_bytes), advice, settings=tuple(names))
        for device, names in systems.items()
    ]


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    found = folder.absolute()
    with contextlib.suppress(OSError):
        while not found.is_dir():
            found = found.parent
    return found


def _space(place: Path, wanted_bytes: int) -> str:
    free, status = shutil.disk_usage(place).free, os.statvfs(place)
    text = f"{_bytes(free)} free at {place}"
    if free < _LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, f"expected at least {_bytes(_LEAST_FREE_BYTES)}, received {text}")
    if status.f_files and not status.f_favail:
        raise OSError(errno.ENOSPC, f"expected room for new files, received {place}, where no inode is free")
    if free < wanted_bytes:
        raise DoubtError(f"expected {_bytes(wanted_bytes)} or more, received {text}")
    return text


def _temporary_folder() -> str:
    return _space(short_temporary_folder(), _LITTLE_FREE_BYTES)


def _shared_memory() -> str:
    if not _SHARED_MEMORY.is_dir():
        raise SkippedError(f"this system has no {_SHARED_MEMORY}")
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if free < OBJECT_STORE_BYTES:
        raise DoubtError(f"expected {_bytes(OBJECT_STORE_BYTES)} for Ray's objects, received {_bytes(free)} free in {_SHARED_MEMORY}")
    return f"{_bytes(free)} free in {_SHARED_MEMORY}"


def _loopback() -> str:
    check_loopback()
    return "processes can talk over 127.0.0.1"


def _packages(names: tuple[str, ...]) -> str:
    """Compare what is installed with what this distribution pins."""
    pinned = {found[1]: found[2] for text in importlib.metadata.requires(_DISTRIBUTION) or () if (found := _PINNED.match(text))}
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise ImportError(f"expected {name} to be installed; it is not") from error
        if (wanted := pinned.get(name)) is not None and versions[name] != wanted:
            raise DoubtError(f"expected {name} {wanted}, which this version was tested with, received {versions[name]}")
    return ", ".join(f"{name} {version}" for name, version in versions.items())


_PINNED = re.compile(r"([\w-]+)(?:\[[^]]*\])?==([\w.]+)")


def _open_files(max_clients: int, *, raises_limit: bool) -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if raises_limit else soft  # Ray raises it for its processes
    wanted = max_clients + _OTHER_FILES
    if most != resource.RLIM_INFINITY and most < wanted:
        raise DoubtError(f"expected {wanted:,} or more, for listen.max_clients = {max_clients}, received a limit of {most:,}")
    return "no limit" if most == resource.RLIM_INFINITY else f"at most {most:,}"


def _processes() -> str:
    limits = []
    if os.geteuid() != 0:  # whom the system does not hold to it
        limits.append(resource.getrlimit(resource.RLIMIT_NPROC)[0])
    limit, used = (_cgroup_number(f"pids.{name}") for name in ("max", "current"))
    if limit is not None:
        limits.append(limit - (used or 0))
    limits = [each for each in limits if each != resource.RLIM_INFINITY]
    if limits and min(limits) < _FEW_PROCESSES:
        raise DoubtError(f"expected {_FEW_PROCESSES:,} processes and threads or more, received a limit of {min(limits):,}")
    return f"at most {min(limits):,}" if limits else "no limit"


def _address_space() -> str:
    for name, limit in (("address space", resource.RLIMIT_AS), ("size of a file", resource.RLIMIT_FSIZE)):
        soft = resource.getrlimit(limit)[0]
        if soft != resource.RLIM_INFINITY:
            raise DoubtError(f"expected no limit on the {name}, received {_bytes(soft)}")
    return "no limit, nor on the size of files"


def _memory(wanted_bytes: int) -> str:
    found = list(_memory_left())
    if not found:
        raise SkippedError("this system does not say how much memory is left")
    left = min(found)
    if left < wanted_bytes:
        raise DoubtError(f"expected {_bytes(wanted_bytes)} or more, received {_bytes(left)} available")
    return f"{_bytes(left)} available"


def _memory_left() -> Iterator[int]:
    with contextlib.suppress(OSError):
        if (found := re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)) is not None:
            yield int(found[1]) * 1024
    limit, used = (_cgroup_number(f"memory.{name}") for name in ("max", "current"))
    if limit is not None:
        yield limit - (used or 0)


def _cgroup_number(name: str) -> int | None:
    """Read a figure of the control group that a container is."""
    try:
        text = (_CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if text in _UNLIMITED else int(text)


def _clock() -> str:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (AttributeError, OSError):
        state = -1
    if state < 0:
        raise SkippedError(f"{now}; this system does not say whether the clock is synchronized")
    if state == _TIME_ERROR:
        raise DoubtError(f"{now}; expected a synchronized clock, received one that nothing synchronizes")
    return f"{now}, synchronized"


def _bytes(count: float) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 2**20:.1f} MiB"
