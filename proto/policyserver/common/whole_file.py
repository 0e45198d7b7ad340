"""A file that is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_LONGEST = 200
"""Characters of a file's name in that of its unfinished form: a name has at most 255 bytes."""


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """Yield an unfinished file beside a path, to be written in the block, which then takes its place; it is removed if the block raises.

    Raises:
        OSError: It can't be written. The error names the path, and not the unfinished file.
    """
    part = path.with_name(f".{path.name[:_LONGEST]}.{os.getpid()}.part")
    try:
        part.touch()
        yield part
        part.replace(path)
    except OSError as error:
        if error.errno is None or (error.filename is not None and Path(os.fsdecode(error.filename)) != part):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
