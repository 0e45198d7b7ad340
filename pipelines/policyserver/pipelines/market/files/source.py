"""The bytes of a file as UTF-8 in blocks that end with a line, whatever the file's packing and encoding."""

from __future__ import annotations

import codecs
import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from policyserver.pipelines.market.files.faults import FileFaultError

_BLOCK_BYTES = 1 << 20
"""Bytes read at once: a block and what is made of it stay in the processor's cache."""

_LONGEST_LINE_BYTES = 1 << 22

_NEWLINE = 10

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file, as UTF-8."""

    data: bytes
    """The lines; the file's last one may have no end."""
    first_line: int
    """Number of the first of them, from 1."""
    n_lines: int
    """How many there are."""

    def halves(self) -> tuple[Block, Block]:
        """Return two blocks of whole lines; there must be several lines."""
        middle = self.data.find(b"\n", len(self.data) // 2, -1) + 1 or self.data.rfind(b"\n", 0, -1) + 1
        first = Block(self.data[:middle], self.first_line, self.data.count(b"\n", 0, middle))
        return first, Block(self.data[middle:], self.first_line + first.n_lines, self.n_lines - first.n_lines)


def read_blocks(path: Path, encoding: str) -> Iterator[Block]:
    """Yield a file's lines in blocks.

    Args:
        path: A plain file, one that is gzipped, or a zip archive of one file: its first bytes tell.
        encoding: Name of the encoding; `auto` takes UTF-8, or what a byte order mark says.

    Raises:
        FileFaultError: The file is cut, damaged, or in another encoding.
        OSError: It can't be read.
    """
    line, rest = 1, b""
    for chunk in _decoded(path, encoding):
        lines, end, after = chunk.rpartition(b"\n")
        if not end and len(rest) + len(chunk) < _LONGEST_LINE_BYTES:
            rest += chunk
            continue
        block = rest + lines + end
        rest = after
        checked = _checked(path, block, line)
        yield checked
        line += checked.n_lines
    if rest:
        yield _checked(path, rest, line)


def _decoded(path: Path, encoding: str) -> Iterator[bytes]:
    """Yield the file as UTF-8 without byte order mark."""
    with _opened(path) as file:
        chunks = _unpacked(path, file)
        first = next(chunks, b"")
        mark, marked = next(((mark, name) for mark, name in _MARKS if first.startswith(mark)), (b"", ""))
        first = first[len(mark) :]
        name = codecs.lookup((marked or "utf-8") if encoding == "auto" else encoding).name
        if name.startswith("utf-16") and marked.startswith("utf-16"):
            name = marked
        yield from _as_utf8(path, first, chunks, name)


def _as_utf8(path: Path, first: bytes, chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    if name in ("utf-8", "utf-8-sig", "ascii"):
        yield first
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(name)()
    try:
        yield decoder.decode(first).encode()
        for chunk in chunks:
            yield decoder.decode(chunk).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise FileFaultError(f"{path}: expected the encoding {name}: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] == b"\x1f\x8b" or path.suffix.lower() == ".gz":
            with gzip.open(file) as unpacked:
                yield cast(IO[bytes], unpacked)
        elif start == b"PK\x03\x04" or path.suffix.lower() == ".zip":
            with _zip_member(path, file) as unpacked:
                yield unpacked
        else:
            yield file


def _zip_member(path: Path, file: IO[bytes]) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise FileFaultError(f"{path}: expected a whole zip archive: {error}") from error
    names = [name for name in archive.namelist() if name.lower().endswith((".csv", ".txt", ".tsv", ".dat"))]
    if len(names) != 1:
        raise FileFaultError(f"{path}: expected a zip archive of one file of bars, received {names}")
    return archive.open(names[0])


def _unpacked(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    try:
        while chunk := file.read(_BLOCK_BYTES):
            yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        kind = "zip" if isinstance(error, zipfile.BadZipFile) or path.suffix.lower() == ".zip" else "gzip"
        raise FileFaultError(f"{path}: expected a whole {kind} file, received one that is cut or damaged: {error}") from error


def _checked(path: Path, block: bytes, line: int) -> Block:
    """Return a block; refuse bytes that are no UTF-8, or of which lines could not be counted."""
    if b"\0" in block:
        raise FileFaultError(f'{path}: expected UTF-8, received zero bytes: is it UTF-16 (mapping.encoding = "utf-16-le") or no text?')
    if not block.isascii():
        _require_utf8(path, block, line)
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n") + block.endswith(b"\r"):
        raise FileFaultError(f"{path}: expected lines that end with \\n or \\r\\n, received a \\r alone")
    n_lines = int(np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == _NEWLINE)) + (not block.endswith(b"\n"))
    if n_lines == 1 and len(block) >= _LONGEST_LINE_BYTES:
        raise FileFaultError(f"{path}, line {line}: expected rows of bars, received a line of more than {_LONGEST_LINE_BYTES:,} bytes")
    return Block(block, line, n_lines)


def _require_utf8(path: Path, block: bytes, line: int) -> None:
    try:
        block.decode()
    except UnicodeDecodeError as error:
        problem = f"expected UTF-8, received the byte 0x{block[error.start]:02x}: is it UTF-16 or Latin-1? Set mapping.encoding"
        raise FileFaultError(f"{path}, line {line + block[: error.start].count(_NEWLINE)}: {problem}") from error
