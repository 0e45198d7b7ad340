"""A peer's process that measures one window for each line of seconds it reads, and is silent in between.

So that its start, imports and all, is paid once and its windows can alternate with another process's. Its standard output carries one JSON
object for each window, after one line that says it is ready.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.windows import Figures, Window

STOP_TIMEOUT_S = 30.0
_MARK = "BENCH "  # what comes without it is chatter of the peer's libraries


@contextmanager
def line_process(command: Sequence[str], log: Path) -> Iterator[Window]:
    """Start the process and wait until it is ready; each window is one line to it and one line back.

    Args:
        command: What to start.
        log: File for what the process writes to its standard error.

    Raises:
        RuntimeError: The process ended instead of answering; the text has the end of its log.
    """
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            _answer(process, log)

            def window(seconds: float) -> Figures:
                assert process.stdin is not None
                process.stdin.write(f"{seconds}\n")
                process.stdin.flush()
                found: Figures = _answer(process, log)
                return found

            yield window
        finally:
            _end(process)


def _answer(process: subprocess.Popen[str], log: Path) -> Any:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    raise RuntimeError(f"expected a line from {process.args!r}, it ended with status {process.wait()}:\n{tail}")


def _end(process: subprocess.Popen[str]) -> None:
    """Close its standard input, on which it ends by itself; kill it if it does not."""
    if process.stdin is not None:
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
