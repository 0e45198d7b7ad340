"""One check of the doctor, and what it finds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from policyserver.common.settings import reason_of

Level = Literal["ok", "skipped", "warning", "fault"]
"""`fault`: a start would fail, or be refused."""

_USUAL_TIMEOUT_S = 10.0


class DoubtError(Exception):
    """What would not stop a start, and should be looked into."""


class SkippedError(Exception):
    """There is nothing to look at; the text says why."""


@dataclass(frozen=True)
class Check:
    """Something to look at."""

    name: str
    """The setting, or the part of the machine."""
    look: Callable[[], str]
    """Returns what was found. Raises DoubtError, SkippedError, or what the start would end with; warnings that it logs are doubts, too."""
    advice: str
    """What to do about a fault or a doubt."""
    timeout_s: float = _USUAL_TIMEOUT_S
    """Longest look; what takes longer is a doubt, and is left to end by itself."""
    settings: tuple[str, ...] = ()
    """Dotted keys of the settings and tables that it needs: it is of no use where one of them is a default in place of a faulty value."""


@dataclass(frozen=True)
class Diagnosis:
    """What a check found."""

    name: str
    level: Level
    found: str
    advice: str
    """What to do; empty if nothing."""


class _Warnings(logging.Handler):
    """Keeps the warnings that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("policyserver."):
            self.texts.append(record.getMessage())


def carry_out(check: Check) -> Diagnosis:
    """Look, on a thread of its own, for what hangs in the system can't be interrupted."""
    findings: list[Diagnosis] = []
    warnings = _Warnings()
    root = logging.getLogger()
    root.addHandler(warnings)
    try:
        thread = threading.Thread(target=lambda: findings.append(_look(check, warnings)), name=f"doctor {check.name}", daemon=True)
        thread.start()
        thread.join(check.timeout_s)
    finally:
        root.removeHandler(warnings)
    return findings[0] if findings else Diagnosis(check.name, "warning", f"no result within {check.timeout_s:g} s", check.advice)


def _look(check: Check, warnings: _Warnings) -> Diagnosis:
    try:
        found = check.look()
    except SkippedError as reason:
        return Diagnosis(check.name, "skipped", str(reason), "")
    except DoubtError as doubt:
        return Diagnosis(check.name, "warning", str(doubt), check.advice)
    except Exception as error:
        return Diagnosis(check.name, "fault", " ".join(reason_of(error).split()), check.advice)
    if warnings.texts:
        return Diagnosis(check.name, "warning", "; ".join(warnings.texts), check.advice)
    return Diagnosis(check.name, "ok", found, "")
