"""What the tests of the processes share: facts beside their sampling errors, and processes made wrong on purpose."""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import LogPaths

Z = 4.0
"""Bound of every statistical check in standard errors; seeds are fixed, so a check that passes goes on passing."""

_GROUPS = 40


class Fact(NamedTuple):
    """A figure, what theory says of it, and the standard error that the sample leaves."""

    measured: float
    expected: float
    standard_error: float


def wrong_facts(facts: Mapping[str, Fact]) -> list[str]:
    """Return the names of the facts that don't hold within Z standard errors; a NaN holds nowhere."""
    return [name for name, fact in facts.items() if not abs(fact.measured - fact.expected) <= Z * fact.standard_error]


def from_groups(statistic: Callable[[FloatArray], float], values: FloatArray, expected: float) -> Fact:
    """Return a statistic of rows that are independent; its standard error is that of the mean over groups of rows."""
    groups = [statistic(group) for group in np.array_split(values, _GROUPS)]
    return Fact(statistic(values), expected, float(np.std(groups, ddof=1)) / math.sqrt(_GROUPS))


def mean_of(values: FloatArray, expected: float) -> Fact:
    """Return the mean of independent values; NaN of none."""
    if not values.size:
        return Fact(math.nan, expected, 0.0)
    return Fact(float(values.mean()), expected, float(values.std()) / math.sqrt(values.size))


def autocorrelation(lag: int) -> Callable[[FloatArray], float]:
    """Return the statistic of rows (n, n_bars) that is their correlation with themselves `lag` bars later."""
    return lambda rows: float(np.corrcoef(rows[:, :-lag].ravel(), rows[:, lag:].ravel())[0, 1])


def fixed(**values: float) -> dict[str, Any]:
    """Return priors of one value each."""
    return {name: Prior.fixed(value) for name, value in values.items()}


def log_paths(process: Any, n_rows: int, n_bars: int, steps_per_bar: int = 1, seed: int = 1) -> LogPaths:
    """Return paths of a process whose priors are fixed, all rows from one generator."""
    rng = np.random.default_rng(seed)
    parameters = {name: np.full(n_rows, value) for name, value in process.draw_parameters(rng).items()}
    paths: LogPaths = process.paths(Draws([rng] * n_rows), parameters, n_bars * steps_per_bar, steps_per_bar)
    return paths


def at_closes(paths: LogPaths, steps_per_bar: int) -> FloatArray:
    """Return the log-prices at bars' ends, the start among them, (n, n_bars + 1)."""
    return paths.log_price[:, ::steps_per_bar]


def mutant(module: str, old: str, new: str) -> Any:
    """Return a module of the processes with one piece of its source changed."""
    original = importlib.import_module(f"policyserver.pipelines.market.processes.{module}")
    source = Path(str(original.__file__)).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{module}.py has {old!r} {source.count(old)} times: change the test with it"
    changed = types.ModuleType(f"changed_{module}_{abs(hash((old, new)))}")
    changed.__file__ = original.__file__
    sys.modules[changed.__name__] = changed  # dataclasses look their module up
    exec(compile(source.replace(old, new), changed.__name__, "exec"), changed.__dict__)
    return changed


def replaced(process: Any, **values: float) -> Any:
    """Return a process with other values for some of its priors."""
    return dataclasses.replace(process, **fixed(**values))
