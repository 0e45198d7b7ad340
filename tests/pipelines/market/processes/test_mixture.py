"""A mixture draws a process for each episode by weight, records which and its parameters, and gives that process's own bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.processes import PROCESSES
from policyserver.pipelines.market.processes.mixture import Mixture, MixturePart
from policyserver.pipelines.market.processes.path_bars import RowBars
from policyserver.pipelines.market.processes.process import draw_bars
from tests.pipelines.market.processes.facts import Fact, mean_of, mutant, wrong_facts

N_ROWS = 1500
PARTS: list[dict[str, Any]] = [
    {"process": "ou", "weight": 3},
    {"process": {"name": "gbm", "volatility": {"low": 0.02, "high": 0.03}}},
    {"process": {"name": "gbm", "volatility": {"low": 0.001, "high": 0.002}}, "weight": 2},
]


def generators(seeds: Sequence[int]) -> list[np.random.Generator]:
    return [np.random.default_rng([7, seed]) for seed in seeds]


def own_bars(part: int, seed: int) -> RowBars:
    """Bars of the part alone, from the generator as the mixture leaves it to the part."""
    process = PROCESSES.make(PARTS[part]["process"], "process")
    rng = generators([seed])[0]
    rng.random()
    return draw_bars(process, [rng], 6, 2)[1]


def mixture_facts(kind: Any, part_kind: Any) -> dict[str, Fact]:
    drawn, bars = draw_bars(kind(tuple(part_kind(**part) for part in PARTS)), generators(range(N_ROWS)), 6, 2)
    parts = np.array([row["part"] for row in drawn])
    volatilities = np.array([row.get("gbm[1].volatility", np.nan) for row in drawn])
    wild = parts == 1
    facts = {f"share of {part}": mean_of((parts == part) * 1.0, share) for part, share in enumerate((1 / 2, 1 / 6, 1 / 3))}
    facts["volatility"] = mean_of(volatilities[wild], 0.025)
    facts["recorded where it was drawn"] = Fact(float(np.sum(np.isfinite(volatilities) != wild)), 0.0, 0.0)
    facts["neighbours"] = mean_of((parts[1:] == parts[:-1]) * 1.0, 1 / 4 + 1 / 36 + 1 / 9)
    different = [not np.array_equal(bars.close[row], own_bars(int(parts[row]), row).close[0]) for row in range(40)]
    return facts | {"bars of the part": Fact(float(sum(different)), 0.0, 0.0)}


@pytest.mark.long
def test_a_mixture_has_its_facts() -> None:
    assert wrong_facts(mixture_facts(Mixture, MixturePart)) == []


def test_what_was_drawn_is_recorded_under_the_name_of_the_part() -> None:
    mixture = Mixture((MixturePart("ou"), MixturePart("heston")))
    drawn = [mixture.draw_parameters(rng) for rng in generators(range(20))]
    assert {frozenset(row) for row in drawn} == {
        frozenset({"part", "ou.mean_price", "ou.reversion", "ou.volatility"}),
        frozenset({"part"} | {f"heston.{name}" for name in PROCESSES.make("heston", "").draw_parameters(np.random.default_rng())}),
    }


def test_a_mixture_may_be_part_of_a_mixture() -> None:
    mixture = Mixture((MixturePart("abm"), MixturePart({"name": "mixture", "parts": PARTS})))
    drawn, bars = draw_bars(mixture, generators(range(30)), 10, 4)
    assert any("mixture.gbm[1].volatility" in row for row in drawn)
    assert np.all(np.isfinite(bars.close))


@pytest.mark.long
@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        pytest.param("[part.weight for part in self.parts]", "[1.0 for part in self.parts]", "share of 0", id="weights not heeded"),
        pytest.param("rng.random() * shares[-1]", "np.random.default_rng(3).random() * shares[-1]", "neighbours", id="one part for all"),
        pytest.param("draws.take(rows.tolist())", "draws.take(range(len(rows)))", "bars of the part", id="random numbers of other rows"),
        pytest.param("values[rows] for", "values[rows[::-1]] for", "bars of the part", id="parameters of other rows"),
    ],
)
def test_a_wrong_mixture_is_found(old: str, new: str, fact: str) -> None:
    changed = mutant("mixture", old, new)
    assert fact in wrong_facts(mixture_facts(changed.Mixture, changed.MixturePart))
