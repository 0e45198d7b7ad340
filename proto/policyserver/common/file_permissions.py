"""Who may write the files that a program of ours makes."""

from __future__ import annotations

import os

_WRITABLE_FOR_OTHERS = 0o022


def keep_others_from_writing() -> None:
    """Let nobody else write a file or folder that this process, or a child, makes from now on, whatever umask it was started with.

    For programs, at their start: a run's folder holds code (checkpoints are pickles), settings and links that are followed.
    """
    os.umask(os.umask(_WRITABLE_FOR_OTHERS) | _WRITABLE_FOR_OTHERS)
