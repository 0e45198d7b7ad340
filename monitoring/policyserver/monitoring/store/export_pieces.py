"""Line protocol in files of bounded size, for databases and proxies that bound the size of a request."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_NAME = "{:04d}.lp"
_PIECE = re.compile(r"\d{4,}\.lp")


class Pieces:
    """Whole lines in files `0001.lp`, `0002.lp`, ... of a folder. Only a line above the bound makes a file above it."""

    def __init__(self, folder: Path, piece_bytes: int) -> None:
        """Begin without a file; `whole_folder` makes the folder."""
        self._folder = folder
        self._piece_bytes = piece_bytes
        self._file: BinaryIO | None = None
        self._left = 0
        self.count = 0
        """Files so far."""

    def write(self, data: bytes) -> int:
        """Write whole lines; return the number of bytes."""
        for line in data.splitlines(keepends=True):
            if self._file is None or len(line) > self._left:
                self._file = self._next_file()
            self._file.write(line)
            self._left -= len(line)
        return len(data)

    def close(self) -> None:
        """Close the current file. Closing again does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next_file(self) -> BinaryIO:
        self.close()
        self.count += 1
        self._left = self._piece_bytes
        return (self._folder / _NAME.format(self.count)).open("wb")


@contextmanager
def whole_folder(output: Path, piece_bytes: int, *, force: bool) -> Iterator[Pieces]:
    """Write pieces into a folder that takes its name when all are complete.

    Raises:
        ValueError: The bound is below 1, or `output` must not be replaced, or it or `output.part` holds something else than pieces.
        OSError: A file can't be written.
    """
    if piece_bytes < 1:
        raise ValueError(f"piece_bytes: expected 1 byte or more, received {piece_bytes}")
    if output.exists() and not force:
        raise ValueError(f"output: expected a folder that is not there yet, received {output}; --force replaces it")
    part = output.with_name(f"{output.name}.part")  # of an export that was killed, if it is there
    for place in (output, part):
        if place.exists() and not (place.is_dir() and all(_PIECE.fullmatch(path.name) for path in place.iterdir())):
            raise ValueError(f"output: expected {place} to be a folder of pieces, which is replaced, or absent; it holds something else")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    pieces = Pieces(part, piece_bytes)
    try:
        yield pieces
        pieces.close()
        if output.exists():
            shutil.rmtree(output)
        part.rename(output)
    finally:
        pieces.close()
        shutil.rmtree(part, ignore_errors=True)
