"""What measures for so many seconds at a time, so that several can take turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Figures = dict[str, Any]
Window = Callable[[float], Figures]
"""Measures for so many seconds and returns the figures; may be called again and again."""
