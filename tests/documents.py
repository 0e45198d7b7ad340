"""How documents name the files of this repository, and the blocks of code that they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
"""What users read. Each of their blocks is run by a test, or says why it is not."""
WRITTEN_FROM_RUNS = {ROOT / "docs" / name for name in ("algorithms.md", "benchmarks.md", "compatibility.md", "learning.md")}
"""Pages of measurements, written by the programs that took them: what they show has run, and is nothing to type."""

OUTPUT = "text"
"""The language of a block that shows what a program printed."""

_FENCE = re.compile(r"^```(\{?)([\w-]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code in a document: where its first line is, its language, and why it is not run, if it says so."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file_name(self) -> str:
        """The file that it is, where its first line is a comment with nothing but a name; else empty."""
        named = re.match(r"# ([\w.-]+\.(?:toml|py))\n", self.text)
        return named[1] if named else ""


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a document, directives apart. A comment `<!-- not run: REASON -->` right above a block marks it."""
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()]
        marked = _NOT_RUN.search(before)
        if not fence[1]:
            yield Block(page, before.count("\n") + 2, fence[2], fence[3], marked[1] if marked else "")


def commands(console: str) -> list[str]:
    """Return the commands of a console block: each from its `$ `, with the lines that continue it, by `> ` or behind a backslash."""
    found: list[str] = []
    continues = False
    for line in console.splitlines():
        if line.startswith("$ "):
            found.append(line[2:])
        elif line.startswith("> "):
            found[-1] += f"\n{line[2:]}"
        elif continues:
            found[-1] += f"\n{line}"
        continues = line.endswith("\\")
    return found


def is_there(name: str) -> bool:
    """Tell whether a file exists that a document names: by its path, or by the short one that ARCHITECTURE.md explains."""
    folder = "proto" if name.startswith("common/") else name.partition("/")[0]
    return (ROOT / name).exists() or (ROOT / folder / "policyserver" / name).exists()
