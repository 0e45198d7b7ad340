"""Run the demo's problem for three seeds and its controls, or beside RLlib's default settings; write docs/learning.md and its pictures.

make learn
make learn ARGS="--steps 20000 --folder build/market"
make learn ARGS=--learners
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.folders import DOCS
from benchmarks.market.learners import compare_learners
from benchmarks.market.variants import run_variants
from policyserver.common.settings import SettingsError
from policyserver.pipelines.runtime.stop_signals import StoppedEarlyError, StopSignals
from policyserver.pipelines.runtime.thread_switching import SWITCH_INTERVAL_S


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the problem; the status is 2 for wrong options, and 1 if a signal ends it before the server is ready."""
    parser = argparse.ArgumentParser(prog="make learn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", action="store_true", help="instead, compare the demo's learner with RLlib's default settings")
    parser.add_argument("--steps", type=int, help="steps of each run (default: the demo's; 100,000 with --learners)")
    parser.add_argument("--folder", type=Path, default=DOCS, help="where learning.md and its pictures go (default: docs)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.setswitchinterval(SWITCH_INTERVAL_S)  # as in `policy-pipeline demo`
    try:
        with StopSignals().installed() as stop:
            (compare_learners if options.learners else run_variants)(options.folder, options.steps, sys.stdout, stop)
    except SettingsError as error:
        parser.error(str(error))
    except StoppedEarlyError as error:
        sys.stderr.write(f"make learn: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
