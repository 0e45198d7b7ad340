"""How documents name the files of this repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]


def is_there(name: str) -> bool:
    """Tell whether a file exists that a document names: by its path, or by the short one that ARCHITECTURE.md explains."""
    folder = "proto" if name.startswith("common/") else name.partition("/")[0]
    return (ROOT / name).exists() or (ROOT / folder / "policyserver" / name).exists()
