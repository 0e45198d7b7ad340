"""The results of a run as JSON files, from which the table and the page are made, now or later."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.folders import BUILD
from benchmarks.machine import machine
from benchmarks.windows import Figures

RESULTS = BUILD / "bench"
QUICK_RESULTS = RESULTS / "quick"


def described() -> dict[str, Any]:
    """Return what every result says of where and when it was measured."""
    return {"machine": machine(), "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")}


def write(folder: Path, name: str, result: Figures) -> None:
    """Write one result."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def read(folder: Path, names: Iterable[str]) -> list[Figures]:
    """Return the results of these names that are there, in this order."""
    paths = [folder / f"{name}.json" for name in names]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
