"""learning.md: a page of parts that different commands make, so that each can make its own anew and leave the others as they are."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

FILE = "learning.md"
_NEXT_PART = "\n## "


def write_part(folder: Path, title: str, text: str) -> None:
    """Put one part into the page of a folder, in place of the one that has its heading, or behind the others.

    Args:
        folder: Where the page is, or will be.
        title: First line of the part: `# ...` of the one that comes first, `## ...` of others.
        text: The part, heading and final line end included.
    """
    page = folder / FILE
    parts = _parts(page.read_text(encoding="utf-8")) if page.exists() else {}
    parts[title] = text
    ordered = sorted(parts.values(), key=lambda part: part.startswith("## "))  # stable
    page.write_text("\n".join(ordered), encoding="utf-8")


def _parts(text: str) -> dict[str, str]:
    """Return the parts of a page by their headings, in order."""
    first, *others = text.split(_NEXT_PART)
    parts = [first + "\n" * bool(others), *(f"## {other}" for other in others)]
    return {part.partition("\n")[0]: part.rstrip("\n") + "\n" for part in parts if part.strip()}


def made_by() -> str:
    """Return the machine and the Python that a part was made with."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def row(cells: Sequence[str]) -> str:
    """Return a row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def pair(mean: float, stderr: float, digits: int = 2) -> str:
    """Write a mean with its standard error; a pair too small for its digits as powers of ten, so that both can be compared."""
    if 0.0 < stderr < 10.0**-digits:
        return f"{mean:+.1e} ± {stderr:.1e}"
    return f"{mean:+.{digits}f} ± {stderr:.{digits}f}"
