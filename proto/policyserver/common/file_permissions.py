"""Who may write the files that the commands make."""

from __future__ import annotations

import os

_WRITABLE_FOR_OTHERS = 0o022


def keep_others_from_writing() -> None:
    """Keep other users from writing the files and folders that this process and its children make, whatever umask it was started with.

    For programs, at their start: a run's folder holds code (checkpoints are pickles), settings and links that are followed.
    """
    os.umask(os.umask(_WRITABLE_FOR_OTHERS) | _WRITABLE_FOR_OTHERS)
