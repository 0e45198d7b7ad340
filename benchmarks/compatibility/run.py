"""Run the cells of the compatibility matrix and write docs/compatibility.md; what each did is in build/compatibility/CELL.json.

make compatibility
make compatibility ARGS="--cells 'PPO-Box-.*' --workers 1"

A run of some cells alone writes no page. The status is 1 if a cell failed that should not have.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.compatibility.cells import CELLS
from benchmarks.compatibility.report import Run, markdown
from benchmarks.compatibility.run_cells import run_cells
from benchmarks.folders import BUILD, DOCS, ROOT
from benchmarks.machine import machine

logger = logging.getLogger("compatibility")

RESULTS = BUILD / "compatibility"
PAGE = DOCS / "compatibility.md"


def versions() -> dict[str, str]:
    """Return what was run."""
    found = {name: version(name) for name in ("ray", "torch", "gymnasium")}
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    commit = f" ({git.stdout.strip()})" if git.returncode == 0 else ""
    return {**found, "ours": version("rllib-policy-server") + commit}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix."""
    parser = argparse.ArgumentParser(prog="make compatibility", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default=".*", metavar="EXPRESSION", help="which cells, by a regular expression of their whole name")
    parser.add_argument("--workers", type=int, default=2, help="processes that run cells at the same time (default: 2)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    cells = [cell for cell in CELLS if re.fullmatch(options.cells, cell.name)]
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    began = time.monotonic()
    done = 0

    def tell(result: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        why = f": {result.get('limit') or result['error']}" if result["outcome"] != "yes" else ""
        logger.info("%3d/%d  %-36s %5.1f s  %s%s", done, len(cells), result["cell"], result["seconds"], result["outcome"], why)

    results = run_cells(cells, RESULTS, options.workers, tell=tell)
    seconds = time.monotonic() - began
    failed = [result["cell"] for result in results.values() if result["outcome"] == "no"]
    logger.info("%d cells in %.0f s; failed: %s", len(results), seconds, ", ".join(failed) or "none")
    if len(cells) == len(CELLS):
        page = markdown(results, Run("make compatibility", date, seconds, versions(), machine()))
        PAGE.write_text(page, encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
