"""Measure the cases, print them as a table, and write build/bench/CASE.json for each and the report docs/benchmarks.md.

make bench
make bench ARGS="--cases threads_64_mlp_busy startup --seconds 5 --no-report"
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks import echo
from tests.benchmarks.cases import CASES, Case
from tests.benchmarks.report import markdown, table

logger = logging.getLogger("bench")

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "build" / "bench"
REPORT = ROOT / "docs" / "benchmarks.md"


def machine() -> str:
    """Describe the machine in one line."""
    memory_gib = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{psutil.cpu_count()} cores, {memory_gib:.0f} GiB, {system}"


def measured(
    case: Case, seconds: float, floors: dict[int, float], described: dict[str, Any], results: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return one case's figures, compared with the floor of this run, with the idle case among its results, and with its bars."""
    result = {"case": case.name, **case.measure(seconds), "says": case.says, **described}
    if case.floor_callers is not None:
        result["floor_messages_per_s"] = floors[case.floor_callers]
        result["ratio_to_floor"] = result["steps_per_s"] / floors[case.floor_callers]
    for idle in results:
        if idle["case"] == case.idle:
            result["throughput_of_idle"] = result["steps_per_s"] / idle["steps_per_s"]
            result["p99_of_idle"] = result["p99_ms"] / idle["p99_ms"]
    result["bars"] = {str(bar): bar.met(result) for bar in case.bars if bar.key in result}
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the status is 1 if a bar was missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], default=[case.name for case in CASES], metavar="CASE")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measured window, warm-up apart (default: 20)")
    parser.add_argument("--no-report", action="store_true", help="leave docs/benchmarks.md as it is")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    described = {"machine": machine(), "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"), "window_s": options.seconds}
    logger.info("floor: bare gRPC echo")
    floors = {callers: echo.measure(callers) for callers in sorted({case.floor_callers for case in CASES if case.floor_callers})}
    results: list[dict[str, Any]] = []
    RESULTS.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if case.name in options.cases:
            logger.info("%s: %s", case.name, case.says)
            result = measured(case, options.seconds, floors, described, results)
            (RESULTS / f"{case.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            results.append(result)
    sys.stdout.write(table(results) + "\n")
    if not options.no_report:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(markdown(results, floors), encoding="utf-8")
    return 0 if all(met for result in results for met in result["bars"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
