"""A process that runs cells, one after another, with one Ray for all of them.

Names of cells come on standard input; a line of JSON goes out for each, and one before the first, when Ray runs. The process ends with its
input, so it does not outlive its parent.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from benchmarks.compatibility.cells import CELLS
from policyserver.server.daemon.ray_start import RayProcess, keep_results_in

_LOGICAL_CPUS = 8


def main(pointer: str) -> None:
    """Run cells until the input ends.

    Args:
        pointer: Where to keep the symbolic link to Ray's folder. With it the parent tidies up after a process that was killed.
    """
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what Ray's actors print goes to the log
    ray_process = RayProcess(Path(pointer))
    try:
        ray_process.start(_LOGICAL_CPUS)
        keep_results_in(ray_process.folder)
        import torch

        from benchmarks.compatibility.run_cell import run_cell

        torch.set_num_threads(1)
        results.write("{}\n")
        results.flush()
        cells = {cell.name: cell for cell in CELLS}
        for name in sys.stdin:
            results.write(json.dumps(run_cell(cells[name.strip()])) + "\n")
            results.flush()
    finally:
        ray_process.stop()


if __name__ == "__main__":
    main(sys.argv[1])
