"""Logging of the server's processes: one format, standard error, and the run's log file where there is one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

from policyserver.server.config.log_config import LogConfig

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CHATTER = ("ray.rllib.algorithms.algorithm_config", "ray._common.deprecation")
"""Loggers that warn at every start about RLlib's own past."""


class JsonFormatter(logging.Formatter):
    """Lays a record out as a JSON object in one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class LogFile(logging.Handler):
    """Appends each record to a file by one write, so that several processes can share it.

    At `max_bytes` one of them renames the file, with `.1` behind its name, and all go on in a new one.

    A line that can't be written, as on a full disk, is counted and not tried again. Standard error tells the first of several, and the
    file their number, as soon as it takes lines again.
    """

    def __init__(self, path: Path, max_bytes: int | None = None) -> None:
        """Open the file, or make it.

        Raises:
            OSError: It can't be opened.
        """
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._file = self._opened()
        self._lost = 0
        self._is_within_line = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        try:
            if self._lost:
                self._write(f"{self._lost} lines are missing here, which could not be written")
                self._lost = 0
            self._write(line)
        except OSError as error:
            self._lost += 1
            if self._lost == 1:
                with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error may be closed or absent
                    sys.stderr.write(f"{self._path}: lines are lost: {error.strerror}\n")
                    sys.stderr.flush()

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _keep_small(self, max_bytes: int) -> None:
        """Go on in a new file once this one is full, or another process found so."""
        if not self._is_current():
            self._reopen()
        elif os.fstat(self._file).st_size >= max_bytes and stat.S_ISREG(os.fstat(self._file).st_mode):
            self._rename()

    def _rename(self) -> None:
        """Put the file aside, unless another process is about to. Waits for none: this holds the lock of all who log."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        try:
            if self._is_current():
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._reopen()

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _reopen(self) -> None:
        before, self._file = self._file, self._opened()
        os.close(before)
        self._is_within_line = False

    def _write(self, line: str) -> None:
        """Append a line; end a line that was cut first."""
        if self._max_bytes is not None:
            self._keep_small(self._max_bytes)
        begin = "\n" if self._is_within_line else ""
        data = f"{begin}{line}\n".encode(errors="backslashreplace")
        written = os.write(self._file, data)
        self._is_within_line = written < len(data) and (written > 0 or self._is_within_line)
        if written < len(data):
            raise OSError(0, "only a part of a line could be written")

    def close(self) -> None:
        """Close the file. Closing again does nothing."""
        if self._file >= 0:
            before, self._file = self._file, -1
            os.close(before)
        super().close()


def log_to(level: str, file: Path | None = None, config: LogConfig | None = None) -> None:
    """Log from a severity on to standard error and, if given, to a file, to which other processes may append at the same time.

    Raises:
        OSError: The file can't be opened.
    """
    config = config or LogConfig()
    formatter = JsonFormatter() if config.format == "json" else logging.Formatter(_FORMAT)
    handlers: list[logging.Handler] = [logging.StreamHandler()] if config.standard_error or file is None else []
    if file is not None:
        handlers.append(LogFile(file, config.max_bytes))
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=handlers, force=True)
    logging.captureWarnings(True)
    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.ERROR)


def adopt_ray_loggers() -> None:
    """Let Ray's messages go where all others go: at its import, Ray gives its loggers a handler and a format of their own."""
    for name in ("ray", "ray.rllib", "ray.data", "ray.train", "ray.tune", "ray.serve"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
