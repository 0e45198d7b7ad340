"""The guide "On a cluster", whose blocks tests follow as they are written."""

from __future__ import annotations

import re
from pathlib import Path

from tests.documents import Block, blocks

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "cluster.md"
FOLDER = "/run/policy-server"
"""Where the guide keeps certificates and secrets."""


def block_with(*texts: str) -> Block:
    """Return the guide's first block with these texts."""
    return next(block for block in blocks(GUIDE) if all(text in block.text for text in texts))


def option_of_ray_start(*texts: str) -> str:
    """Return the option of `ray start` with these texts that a sentence of the guide names, as the shell passes it on."""
    named: list[str] = re.findall(r"`(?:ray start )?(--\S+=.+?)`", GUIDE.read_text(encoding="utf-8"))
    return next(option for option in named if all(text in option for text in texts)).replace("'", "")


def merged(settings: str, part: str) -> str:
    """Return settings with a part that a block shows: what its tables say comes first in tables of the same name."""
    _, *parts = re.split(r"^\[([\w.]+)\]\n", part, flags=re.MULTILINE)
    for table, lines in zip(parts[::2], parts[1::2], strict=True):
        header = f"[{table}]\n"
        settings = settings.replace(header, header + lines) if header in settings else settings + header + lines
    return settings
