"""`policy-pipeline check-future --config FILE`: whether a pipeline knows more than it can. No server and no policy are needed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from policyserver.common.settings import SettingsError, add_arguments, from_arguments, load
from policyserver.pipelines.audit.findings import CheckResult
from policyserver.pipelines.config import PipelineConfig

_CUTS = 12
_FAIR_BARS = 10_000
"""Bars that a fair game has at least, in as many rounds as that takes."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--config", type=Path, help="TOML file of a pipeline; without one, the defaults")
    parser.add_argument("--episodes", type=int, metavar="N", help="episodes that are checked (default: those of the first round)")
    parser.add_argument("--cuts", type=int, default=_CUTS, metavar="N", help=f"times that the future is changed (default: {_CUTS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there, too")
    add_arguments(parser, PipelineConfig)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print what each check found; return 1 if one found a fault, else 0.

    Raises:
        SettingsError: A setting or an option is wrong.
    """
    config = load(PipelineConfig, options.config, from_arguments(PipelineConfig, options))
    for name in ("episodes", "cuts"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise SettingsError(f"--{name}", "option", f"expected at least 1, received {value}")
    results = []
    for check in checks(config, options.episodes, options.cuts):
        results.append(check())
        sys.stdout.write(results[-1].text())
        sys.stdout.flush()
    has_fault = any(result.faults for result in results)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        found = {"has_fault": has_fault, "checks": [result.table() for result in results]}
        options.json.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return int(has_fault)


def checks(config: PipelineConfig, episodes: int | None = None, cuts: int = _CUTS) -> list[Callable[[], CheckResult]]:
    """Return the checks of a pipeline, each still to be made; of a walk-forward those of each part, and of the split of each fold.

    Args:
        config: Settings.
        episodes: How many are checked; None: those of the first round.
        cuts: How often the future is changed.

    Raises:
        SettingsError: The prices can't be made, or the regressor can't; or it begins with what it has learnt of these prices.
    """
    from policyserver.pipelines.audit.split_parts import check_split
    from policyserver.pipelines.walk_forward import fold_parts, is_walk_forward

    if not is_walk_forward(config):
        return _checks(config, episodes, cuts, looks_at_split=True)
    found: list[Callable[[], CheckResult]] = []
    for part in fold_parts(config):
        name, own = f"{part.side} {part.fold}", part.config
        found += [partial(_named, name, check) for check in _checks(own, episodes, cuts, looks_at_split=False)]
        if part.side == "train":
            found.append(partial(_named, f"fold {part.fold}", partial(check_split, own)))
    return found


def _named(part: str, check: Callable[[], CheckResult]) -> CheckResult:
    return replace(check(), part=part)


def _checks(config: PipelineConfig, episodes: int | None, cuts: int, *, looks_at_split: bool) -> list[Callable[[], CheckResult]]:
    from policyserver.pipelines.audit.changed_future import check_changed_future
    from policyserver.pipelines.audit.fair_game import check_fair_game
    from policyserver.pipelines.audit.warm_up import check_warm_up
    from policyserver.pipelines.forecast_start import start_of
    from policyserver.pipelines.run import source_of

    start_of(config, source_of(config))
    count = episodes or config.episodes.concurrent
    concurrent = min(count, config.episodes.concurrent)
    first = config.episodes.first_round * concurrent
    chosen = range(first, first + count)
    fair = range(first, first + max(count, -(-_FAIR_BARS // config.prices.bars_per_episode)))
    return [
        lambda: check_changed_future(config, chosen, concurrent, cuts, looks_at_split=looks_at_split),
        lambda: check_fair_game(config, fair, concurrent),
        lambda: check_warm_up(config, chosen, concurrent),
    ]
