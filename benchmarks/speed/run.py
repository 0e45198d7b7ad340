"""Measure the cases in turns with their peers and floors, then how cost grows; print the table and write the page with its plots.

make bench
make bench ARGS="--cases threads_64_mlp threads_64_mlp_busy --seconds 5 --no-report"
make bench ARGS="--profile"            where the serving process spends its time, too (needs py-spy)
make bench ARGS="--cases --profile"    that alone
make bench ARGS="--only-report"        no measuring: table, page and plots from what lies in build/bench
make bench ARGS="--cases learner_lstm learner_lstm_gpu"    on a machine with a GPU: the learner there, beside the CPU's
make bench-quick
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed import page, results
from benchmarks.speed.alternation import groups, measure_group
from benchmarks.speed.case import Case
from benchmarks.speed.cases import CASES, QUICK
from benchmarks.speed.growth import SWEEPS, Sweep, measure_sweep
from benchmarks.speed.report import table
from benchmarks.speed.sampling_profile import PROFILED, profile_case
from benchmarks.speed.servers import Servers

logger = logging.getLogger("bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the status is 1 if a bar was missed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    folder = results.QUICK_RESULTS if options.quick else results.RESULTS
    everything = options.cases is None and options.sweeps is None
    cases = [case for case in (QUICK if options.quick else CASES) if everything or case.name in (options.cases or ())]
    sweeps = [sweep for sweep in SWEEPS if not options.quick and (everything or sweep.name in (options.sweeps or ()))]
    if not options.only_report:
        _measure_cases(cases, options, folder)
        _measure_sweeps(sweeps, options.seconds, folder)
        if options.profile:
            _profile(options.seconds, folder)
    shown = results.read(folder, [case.name for case in cases])
    if options.only_report and not shown:
        parser.error(f"--only-report: expected results in {folder}, received none: run it without the option first")
    sys.stdout.write(table(shown) + "\n")
    if not (options.no_report or options.quick):
        page.write(folder)
    return 1 if any(met is False for result in shown for met in result["bars"].values()) else 0


def _measure_cases(cases: Sequence[Case], options: argparse.Namespace, folder: Path) -> None:
    """Measure the cases group by group and write their results; a group has servers of its own, in a quick run all share them."""
    with Servers(keep=options.quick) as servers:
        for group in groups(cases):
            for case in group:
                logger.info("%s: %s", case.name, case.says)
            for result in measure_group(group, servers, options.seconds, options.rounds):
                if "missing" in result:
                    logger.warning("%s is not measured: %s", result["case"], result["missing"])
                if "missing" not in result or not results.read(folder, [result["case"]]):  # it may have been measured elsewhere
                    results.write(folder, result["case"], result | results.described())
            servers.let_go()


def _measure_sweeps(sweeps: Sequence[Sweep], seconds: float | None, folder: Path) -> None:
    for sweep in sweeps:
        logger.info("%s: %s", sweep.name, sweep.says)
        results.write(folder, sweep.name, measure_sweep(sweep, seconds) | results.described())


def _profile(seconds: float | None, folder: Path) -> None:
    with Servers() as servers:
        for name in PROFILED:
            logger.info("profile of %s", name)
            found = profile_case(name, servers, folder, seconds)
            if "missing" in found:
                logger.warning("no profile: %s", found["missing"])
            results.write(folder, f"profile_{name}", found | results.described())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names, sweeps = [case.name for case in CASES], [sweep.name for sweep in SWEEPS]
    parser.add_argument("--cases", nargs="*", choices=names, metavar="CASE", help=f"only these of {', '.join(names)}")
    parser.add_argument("--sweeps", nargs="*", choices=sweeps, metavar="SWEEP", help=f"only these of {', '.join(sweeps)}")
    parser.add_argument("--seconds", type=float, help="length of every window, warm-up apart (default: each case's own)")
    parser.add_argument("--rounds", type=int, help="windows of each contender, in turns (default: each case's own, mostly 3)")
    parser.add_argument("--quick", action="store_true", help="the core in a minute: no peers, no page; results in build/bench/quick")
    parser.add_argument("--profile", action="store_true", help="record where the serving process spends its time, with py-spy")
    parser.add_argument("--no-report", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--only-report", action="store_true", help="measure nothing, make the page from the results that are there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
