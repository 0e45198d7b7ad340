"""What begins with what another one has learnt goes on as if it had never stopped, and tells nothing of what it has learnt already."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.forecast.block_forecaster import INPUTS, STATISTICS
from policyserver.pipelines.forecast.forecasts import Forecasts
from policyserver.pipelines.forecast.regressor import DEFAULT_MODEL, RegressorConfig, ReturnRegressor
from policyserver.pipelines.forecast.return_model import ReturnModel
from policyserver.pipelines.forecast.state_file import ForecastState, KeptModel
from policyserver.pipelines.forecast.state_saver import StateSaver
from policyserver.pipelines.forecast.tracks import Track, Tracks
from policyserver.pipelines.market.bars import History
from tests.pipelines.forecast.test_tracks import history, never
from tests.pipelines.market.price_paths import begun, episode_of
from tests.pipelines.recorded_prices import fair_game
from tests.services import wait_until

ADAM = {"name": DEFAULT_MODEL, "optimizer": {"name": "river.optim.Adam", "lr": 0.01}}
TREES = {
    "name": "river.ensemble.BaggingRegressor",
    "n_models": 3,
    "model": {"name": "river.tree.HoeffdingTreeRegressor", "grace_period": 20},
}
MODELS: dict[str, Any] = {
    "line": DEFAULT_MODEL,
    "adam": ADAM,
    "trees": TREES,
    "rules": "river.rules.AMRules",
    "forest": "river.forest.ARFRegressor",
}
LINE = RegressorConfig()


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_a_model_that_was_saved_goes_on_bit_for_bit(model: Any) -> None:
    config, rng = RegressorConfig(model=model), np.random.default_rng(5)
    one, other = ReturnModel(config, INPUTS), ReturnModel(config, INPUTS)
    features, returns = 0.01 * rng.standard_normal((400, 3)), 0.01 * rng.standard_normal(400)
    for first in range(0, 400, 8):
        if first == 200:
            kept = KeptModel.of(other.learnt())
            other = ReturnModel(config, INPUTS)
            other.restore(kept.learnt())
        rows = slice(first, first + 8)
        forecasts = [each.predict(features[rows]) for each in (one, other)]
        assert forecasts[0].tobytes() == forecasts[1].tobytes()
        for each in (one, other):
            each.learn(features[rows], forecasts[0], returns[rows])
    assert (other.learned, other.reliability) == (400, one.reliability)


def test_a_saved_copy_does_not_learn_on_with_the_model() -> None:
    regressor = ReturnRegressor(LINE)
    kept = KeptModel.of(regressor.learnt())
    regressor.learn({"x": 1.0}, regressor.predict({"x": 1.0}), 0.5)
    assert kept.learnt().learned == 0
    assert kept.learnt().model.predict_one({"x": 1.0}) == 0.0


CLOSES = fair_game(3_000, seed=3)


def track(recorded: History, start: KeptModel | None = None) -> Track:
    return Track("A", recorded, LINE, never, start)


def learnt_until(row: int) -> KeptModel:
    """What a track has learnt of the bars up to a row."""
    before = track(dataclasses.replace(history(CLOSES), played=(0, row + 1)))
    before.forecast(row)
    kept = before.kept()
    assert kept is not None
    assert kept.until_ns == row
    return kept


@pytest.mark.long
def test_a_track_goes_on_after_its_newest_bar_as_if_it_had_never_stopped() -> None:
    whole, later = track(history(CLOSES)), track(history(CLOSES), learnt_until(1_700))
    rows = range(1_700, 3_000)
    assert [later.forecast(row).tobytes() for row in rows] == [whole.forecast(row).tobytes() for row in rows]
    assert not any(later.forecast(row).any() for row in range(1_700)), "of bars that it has learnt it tells nothing"
    ends = [each.kept() for each in (whole, later)]
    assert [kept and (kept.learned, kept.until_ns) for kept in ends] == [(2_998, 2_999)] * 2, "no bar was learnt twice"


@pytest.mark.long
def test_a_track_of_later_bars_alone_begins_with_what_it_knows() -> None:
    recorded = history(CLOSES)
    rest = dataclasses.replace(recorded, bars=recorded.bars.slice(2_000, 3_000))
    fresh, restored = track(rest), track(rest, learnt_until(1_700))
    assert fresh.forecast(1)[0] == 0.0
    assert restored.forecast(1)[2] != 0.0


def test_a_track_learns_no_bar_after_the_part_that_is_played() -> None:
    training = track(dataclasses.replace(history(CLOSES), played=(0, 1_100)))
    training.forecast(1_050)
    kept = training.kept()
    assert kept is not None
    assert kept.until_ns == 1_099


def test_of_several_folds_the_model_that_has_learnt_furthest_is_kept() -> None:
    folds = [dataclasses.replace(history(CLOSES), played=played) for played in ((0, 500), (700, 900), (500, 700))]
    tracks = Tracks(LINE, never, {"B": learnt_until(100)})
    for fold in folds:
        assert fold.played is not None
        tracks.of("A", fold).forecast(fold.played[1] - 1)
    kept = tracks.kept()
    assert {symbol: model.until_ns for symbol, model in kept.items()} == {"A": 899, "B": 100}, "what was not played stays as it was"


def simulated(start: ForecastState | None = None, blocks: int = 2) -> Forecasts:
    forecasts = Forecasts(LINE, is_recorded=False, start=start)
    for block in range(blocks):
        made, _ = begun([episode_of(CLOSES[:60], 20)], statistics=STATISTICS)
        forecasts.make(made.view, block)
    return forecasts


def test_blocks_begin_with_models_of_their_own_by_number_and_go_round_where_there_are_more() -> None:
    models = {str(block): KeptModel.of(_taught(block + 1)) for block in range(2)}
    start = dataclasses.replace(simulated().state(60, {}, 3), models=models, episodes={3: 64})
    again = simulated(start, blocks=3).state(60, {}, 4)
    assert [model.learned for model in again.models.values()] == [1, 2, 1]
    assert again.episodes == {3: 64, 4: 0}, "what the first run had learnt of is remembered"


def _taught(labels: int) -> Any:
    regressor = ReturnRegressor(LINE)
    for _ in range(labels):
        regressor.learn({"x": 1.0}, regressor.predict({"x": 1.0}), 0.5)
    return regressor.learnt()


@pytest.mark.long
def test_a_state_is_saved_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    asked: list[int] = []

    def state() -> ForecastState:
        asked.append(len(asked))
        if len(asked) == 2:
            raise TypeError("not this time")
        return dataclasses.replace(simulated().state(60, {}, 3), episodes={3: len(asked)})

    saver = StateSaver(tmp_path, state, 0.01)
    saver.start()
    wait_until(lambda: len(asked) > 2, "three times")
    saver.close()
    assert ForecastState.from_bytes((tmp_path / "forecast.state").read_bytes()).episodes == {3: len(asked)}
