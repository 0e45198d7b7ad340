"""Standard output and error of the commands: a closed pipe, a full disk or an encoding that lacks a character fails no command."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

_SPELLED = {"±": "+-"} | dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True))
"""What stands for characters of the tables that an encoding lacks. Others become escapes, as in TOML and JSON."""


class LastingStream:
    """A text stream that drops what can't be written, and knows why. Everything else is passed to the stream below."""

    def __init__(self, stream: TextIO | None) -> None:
        """Write to `stream`; None, as Python has it where the descriptor was closed, takes nothing."""
        self._stream: Any = io.StringIO() if stream is None else stream
        self.error: OSError | None = None
        """Why nothing more is written; None while all is well."""

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        if self.error is None:
            with self._giving_up():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        if self.error is None:
            with self._giving_up():
                self._stream.flush()

    def give_up(self, error: OSError) -> None:
        """Write nothing more, not even what waits in the stream's buffer: Python would fail on that once more at its end."""
        self.error = error
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    @property
    def reason(self) -> str:
        """What to tell the user; empty while all is well, and if the reader closed the pipe."""
        return "" if self.error is None or isinstance(self.error, BrokenPipeError) else self.error.strerror or str(self.error)

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_streams(program: str) -> Iterator[LastingStream]:
    """Let standard output and error be lasting ones while the command `program` runs; yields standard output.

    When the block is left, standard error says why output was lost, unless the reader closed the pipe.
    """
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    out, err = LastingStream(sys.stdout), LastingStream(sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        codecs.register_error("policyserver.spelled", _spelled)
        sys.stdout.reconfigure(errors="policyserver.spelled")
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        if out.reason:
            err.write(f"{program}: standard output can't be written: {out.reason}\n")
        err.flush()
        sys.stdout, sys.stderr = before


def _fill_descriptors() -> None:
    """Open the missing ones of the descriptors 0, 1, 2: else the next file that is opened, such as a database, would be standard output."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue
    os.close(descriptor)


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """Spell what an encoding lacks; bytes of a file's name that are no text stay what they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    first = error.object[error.start]
    if "\udc80" <= first <= "\udcff":
        return bytes([ord(first) - 0xDC00]), error.start + 1
    escaped = f"\\u{ord(first):04x}" if ord(first) < 0x10000 else f"\\U{ord(first):08x}"
    return _SPELLED.get(first, escaped), error.start + 1
