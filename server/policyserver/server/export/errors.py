"""What can go wrong with an export."""

from __future__ import annotations


class ExportError(ValueError):
    """A policy that can't be carried away; the text says what of it."""
