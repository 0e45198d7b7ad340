"""The memory that this process has for itself, whatever the system does with the pages of its files."""

from __future__ import annotations

import gc
import re
from pathlib import Path


def anonymous_mb() -> float:
    """Return what this process has in memory that is of no file, without garbage, in MB.

    Resident memory as a whole also has the pages of libraries, hundreds of MB with PyTorch's: they are read as they are needed, and a
    system that is short of memory takes them back.
    """
    gc.collect()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None, "expected a Linux that tells RssAnon"
    return int(found[1]) * 1024 / 1e6
