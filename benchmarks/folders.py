"""Where results are kept and where pages go."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
"""Results of runs, each tool's in a folder of its own; never committed."""
DOCS = ROOT / "docs"
"""The pages that are made of them."""
