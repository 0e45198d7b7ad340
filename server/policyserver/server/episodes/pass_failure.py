"""Rows that a policy could not decide together."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class PassFailure:
    """Rows that a policy could not decide together."""

    incident: str
    tries_left: int = 64
    """A row among a thousand is found in twenty; if everything fails, trying goes on for no longer than that."""

    @classmethod
    def logged(cls, rows: int) -> PassFailure:
        """Log the exception that is being handled."""
        failure = cls(secrets.token_hex(4))
        logger.exception("incident %s: %d rows could not be answered together", failure.incident, rows)
        return failure
