"""Which version of this package a process has. Two commits may have one version, so a sum of the sources is part of it."""

from __future__ import annotations

import functools
from collections.abc import Callable


@functools.cache
def package_version() -> str:
    """Return version and sum of the sources of what this process has."""
    return version_reader()()


def version_reader() -> Callable[[], str]:
    """Return the function that says so. It travels to machines that may lack this package: by value, and it imports nothing of it."""

    def read() -> str:
        import hashlib
        import importlib.metadata
        import pathlib

        try:
            import policyserver

            version = importlib.metadata.version("rllib-policy-server")
        except ImportError:  # PackageNotFoundError is one, too
            return "none"
        files = {}
        for folder in ("client", "common", "monitoring", "server", "v1"):
            for root in policyserver.__path__:
                base = pathlib.Path(root)
                files.update({file.relative_to(base).as_posix(): file for file in (base / folder).rglob("*.py")})
        total = hashlib.sha256()
        for name in sorted(files):
            total.update(name.encode() + b"\0" + hashlib.sha256(files[name].read_bytes()).digest())
        return f"{version} (sources {total.hexdigest()[:12]})"

    return read
