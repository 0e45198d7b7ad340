"""Let each case learn on both sides, keep the results in build/learning/*.json and write docs/algorithms.md from all that are there.

make algorithms
make algorithms ARGS="--cases DQN SAC --seeds 0 --sides 'over gRPC'"
make algorithms ARGS="--cases"              # only the page
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.folders import BUILD, DOCS
from benchmarks.learning import over_grpc
from benchmarks.learning.cases import ALONE, CASES, SIDES, Case, case_of
from benchmarks.learning.report import markdown, missed
from benchmarks.machine import machine
from benchmarks.settings_difference import differing
from policyserver.server.daemon.ray_start import RayProcess

logger = logging.getLogger("learning")

RESULTS = BUILD / "learning"
REPORT = DOCS / "algorithms.md"


def learned(case: Case, side: str, seed: int) -> dict[str, Any]:
    """Let one case learn on one side and return its result, with when and where it was."""
    with tempfile.TemporaryDirectory() as folder:
        if side == ALONE:
            from benchmarks.learning import in_process

            outcome = in_process.learn(case, seed, Path(folder))
        else:
            outcome = over_grpc.learn(case, seed, Path(folder))
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    settings = {key: value for key, value in differing(case.server_config(seed)).items() if key != "seed"}
    return {**asdict(outcome), "bar": case.bar, "machine": machine(), "date": today, "settings": settings}


def main(arguments: Sequence[str] | None = None) -> int:
    """Learn and report; the status is 1 if a bar of the ratios is missed."""
    parser = argparse.ArgumentParser(prog="make algorithms", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="*", choices=names, default=names, metavar="CASE", help=f"of {names} (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, help="(default: those of each case)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help="(default: both)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    warnings.simplefilter("ignore")  # RLlib's own

    RESULTS.mkdir(parents=True, exist_ok=True)
    for side in options.sides:
        ray_process = RayProcess() if side == ALONE and options.cases else None
        if ray_process:
            ray_process.start(num_cpus=4)
            import torch

            torch.set_num_threads(1)  # as in the daemon
        for case in map(case_of, options.cases):
            for seed in range(case.seeds) if options.seeds is None else options.seeds:
                result = learned(case, side, seed)
                logger.info("%s", result)
                name = re.sub(r"\W+", "-", f"{case.name} {side} {seed}")
                (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if ray_process:
            ray_process.stop()
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    REPORT.write_text(markdown(results), encoding="utf-8")
    for line in missed(results):
        logger.warning("%s", line)
    return 1 if missed(results) else 0


if __name__ == "__main__":
    sys.exit(main())
