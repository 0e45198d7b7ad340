"""What this process has open, named so that what a test opened can be told from what another's garbage still holds."""

from __future__ import annotations

import os
from contextlib import suppress

Descriptor = tuple[int, str]


def open_descriptors() -> set[Descriptor]:
    """Return the number of each open descriptor and what it leads to; a socket has a name of its own there.

    Subtract an earlier answer to learn what is new. A difference of counts is no such answer: sockets of an earlier test, which are in a
    cycle, are closed whenever the collector comes to them.
    """
    found: set[Descriptor] = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile, as is the one that lists the folder
            found.add((int(number), os.readlink(f"/proc/self/fd/{number}")))
    return found
