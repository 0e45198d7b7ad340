"""Where something was measured."""

from __future__ import annotations

import platform

import psutil


def machine() -> str:
    """Describe the machine in one line."""
    memory_gib = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{psutil.cpu_count()} cores, {memory_gib:.0f} GiB, {system}"
