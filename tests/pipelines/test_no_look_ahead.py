"""On recorded bars a forecast knows the file up to its own bar, whichever episodes were played before it and beside it."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.action import Action
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.forecast.regressor import RegressorConfig, skill
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.prices import make_source
from tests.pipelines.pipeline_harness import Book, play
from tests.pipelines.policy_double import PolicyDouble
from tests.pipelines.recorded_prices import TREE, fair_game, file_config, write_bars

PREDICTION = Rules.of(RulesConfig()).names(("price",)).index("prediction")


def rows_of_steps(settings: PipelineConfig, book: Book) -> list[tuple[int, dict[str, Any]]]:
    """The recorded steps, each with the row of the file that its bar is; two episodes of one row are two steps."""
    source, first_rows = make_source(settings.prices, settings.seed), {}
    for episode in {row["episode"] for row in book.rows["step"]}:
        first_rows[episode] = source.episodes([int(episode.rpartition("-")[2])])[0].first_row
    before = settings.prices.warmup_bars - 1
    return [(first_rows[row["episode"]] + before + row["bar"], row) for row in book.rows["step"]]


@pytest.mark.long
@pytest.mark.parametrize("concurrent", [pytest.param(1, marks=pytest.mark.slow), 16])
@pytest.mark.parametrize("regressor", [RegressorConfig(), TREE], ids=["line", "tree"])
def test_bars_after_a_time_change_no_prediction_up_to_it_in_any_episode(
    concurrent: int, regressor: RegressorConfig, tmp_path: Path
) -> None:
    last_good = 300
    closes = fair_game(600, seed=1)
    garbled = np.concatenate((closes[: last_good + 1], closes[last_good] * fair_game(600 - last_good - 1, seed=2, volatility=0.2) / 100.0))
    predictions: list[dict[tuple[str, int], tuple[int, float, float]]] = []
    for name, prices in (("honest", closes), ("garbled", garbled)):
        (tmp_path / name).mkdir()
        file = write_bars(tmp_path / name / "GAME.csv", prices)
        settings = file_config(file, concurrent=concurrent, steps=2_400, bars=40, warmup=30, regressor=regressor)
        steps = rows_of_steps(settings, play(settings)[2])
        predictions.append({(row["episode"], row["bar"]): (at, row["prediction"], row["prediction_std"]) for at, row in steps})
    honest, other = predictions
    common = honest.keys() & other.keys()
    known = [step for step in common if honest[step][0] <= last_good]
    assert len(known) > 600
    assert len({honest[step][0] for step in known}) > 200, "the windows overlap, and cover the bars"
    assert [step for step in known if honest[step] != other[step]] == []
    assert [step for step in common - set(known) if honest[step] != other[step]] != []


@pytest.mark.long
def test_the_forecast_as_of_a_bar_is_the_same_in_every_episode(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "GAME.csv", fair_game(250, seed=1))
    made: dict[int, set[float]] = defaultdict(set)
    for concurrent in (1, 5):
        settings = file_config(file, concurrent=concurrent, steps=900, bars=40, warmup=30, regressor=TREE)
        pipeline, _, book = play(settings)
        for at, row in rows_of_steps(settings, book):
            made[at].add(row["prediction"])
        assert pipeline.run.forecasts.count <= 250, "the same forecast, played again, is no more evidence of its skill"
    assert len(made) > 180
    assert {len(predictions) for predictions in made.values()} == {1}


@pytest.mark.slow
def test_who_follows_a_tree_earns_nothing_on_a_fair_game(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "GAME.csv", fair_game(5_000, seed=5))
    follow = PolicyDouble(lambda observations: np.where(observations[:, PREDICTION] > 0, Action.BUY, Action.SELL))
    settings = file_config(file, concurrent=32, steps=60_000, bars=100, warmup=50, regressor=TREE)
    pipeline, _, book = play(settings, follow)
    forecasts = pipeline.run.forecasts.last(1.0)
    assert skill(forecasts["squared_error"], forecasts["squared_return"])[0] < 0.005
    gains: dict[int, list[float]] = defaultdict(list)
    for at, row in rows_of_steps(settings, book):
        gains[at].append(row["reward"])
    gain = np.array([np.mean(each) for each in gains.values()])  # what is played again is no new evidence
    assert len(gain) > 4_500
    z = float(gain.sum() / math.sqrt(np.sum(gain**2)))
    assert z < 3.0, f"{gain.mean():+.3f} a bar"
    assert z > -4.0
