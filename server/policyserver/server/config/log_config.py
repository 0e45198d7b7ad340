"""How the daemon and its serving actors log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from policyserver.common.settings import Config


@dataclass(frozen=True)
class LogConfig(Config):
    """The form of the log, and how large its file gets."""

    format: Literal["text", "json"] = "text"
    """`json`: one object a line, with `time` (UTC), `level`, `logger`, `process`, `message` and, if there is one, `exception`."""
    standard_error: bool = True
    """Whether each line goes to standard error as well as to `server.log` in the run folder. False where something keeps standard error,
    too, and lines should be kept once."""
    max_bytes: Annotated[int, Ge(10_000)] | None = 64 * 2**20
    """Size at which the file is renamed to `server.log.1`, in the place of an earlier one, and a new one begun. None: it grows."""
