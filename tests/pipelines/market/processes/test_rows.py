"""A row is a function of its own generator, and gives the numbers recorded for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes import PROCESSES, PriceProcess
from policyserver.pipelines.market.processes.bootstrap import StationaryBootstrap
from policyserver.pipelines.market.processes.path_bars import RowBars
from policyserver.pipelines.market.processes.process import draw_bars
from tests.pipelines.recorded_prices import write_columns

MATRIX = [[1.0, 0.6], [0.6, 1.0]]
PARTS = [{"process": name} for name in ("gbm", "heston", "ou")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> PriceProcess:
    """A bootstrap of a simulated row."""
    bars = draw_bars(PROCESSES.make("garch", "p"), [np.random.default_rng(1)], 300, 4)[1].row(0, np.arange(300))
    columns = {name: getattr(bars, name) for name in RowBars.__slots__}
    file = write_columns(tmp_path_factory.mktemp("bars") / "AAA.csv", **columns)
    return StationaryBootstrap(CatalogConfig((str(file),)), mean_block_bars=Prior(2.0, 50.0))


CHOICES: dict[str, Any] = {name: name for name in PROCESSES.shipped} | {
    "garch with t": {"name": "garch", "innovations": "t"},
    "correlated": {"name": "correlated", "correlation": MATRIX, "process": "heston"},
    "mixture": {"name": "mixture", "parts": PARTS},
}


@pytest.fixture(params=CHOICES)
def process(request: pytest.FixtureRequest) -> PriceProcess:
    choice = CHOICES[request.param]
    made: PriceProcess = request.getfixturevalue("recorded") if choice == "bootstrap" else PROCESSES.make(choice, "p")
    return made


def bars_of(process: PriceProcess, rows: range, n_bars: int = 30) -> tuple[list[dict[str, float]], RowBars]:
    return draw_bars(process, [np.random.default_rng([5, row]) for row in rows], n_bars, 4)


def test_a_row_is_the_same_whichever_rows_are_drawn_with_it(process: PriceProcess) -> None:
    drawn, bars = bars_of(process, range(24))
    step = process.rows_per_episode
    for first in range(0, 24, step):
        own, alone = bars_of(process, range(first, first + step))
        assert own == drawn[first : first + step]
        for column in RowBars.__slots__:
            np.testing.assert_array_equal(getattr(alone, column), getattr(bars, column)[first : first + step], err_msg=column)
    assert len({*bars.close[:, 0].tolist()}) == 24


def test_every_parameter_that_is_drawn_lies_in_its_prior(process: PriceProcess) -> None:
    for row in (process.draw_parameters(np.random.default_rng(seed)) for seed in range(50)):
        for parameter, value in row.items():
            if isinstance(declared := getattr(process, parameter, None), Prior):
                assert declared.low <= value <= declared.high


@pytest.mark.parametrize(
    ("name", "row", "first_open", "closes"),
    [
        ("gbm", 1, 146.24713483319192, [145.18323042116228, 142.64840349428187, 173.6360183312183, 186.16551900960138]),
        ("gbm", 2, 69.51720236139315, [70.87558186752881, 70.20347976847614, 76.64831970592216, 61.30739785384926]),
        ("ou", 1, 150.2712919228437, [149.08251871848486, 144.89312487961678, 153.44203784445267, 147.11540271789642]),
        ("ou", 2, 70.24609231665434, [71.17883707373737, 69.87041138894277, 73.63552499183727, 64.23752236283576]),
    ],
)
def test_the_demos_processes_give_the_prices_recorded_for_them(name: str, row: int, first_open: float, closes: list[float]) -> None:
    bars = bars_of(PROCESSES.make(name, "p"), range(1, 3), 300)[1]
    np.testing.assert_allclose(bars.close[row - 1, [0, 1, 149, 299]], closes, rtol=1e-13)
    assert bars.open[row - 1, 0] == pytest.approx(first_open, rel=1e-13)
    np.testing.assert_array_equal(bars.open[:, 1:], bars.close[:, :-1])
