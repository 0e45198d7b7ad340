"""The forecasts of recorded bars: one pass through a file in its own time, which all episodes on it read."""

from __future__ import annotations

import dataclasses
from itertools import count
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.forecast.block_forecaster import STATISTICS
from policyserver.pipelines.forecast.regressor import NO_PREDICTION, Prediction, RegressorConfig, ReturnRegressor
from policyserver.pipelines.forecast.track_features import TrackFeatures
from policyserver.pipelines.forecast.tracks import Track, TrackForecaster, Tracks
from policyserver.pipelines.market.bars import Bars, FloatArray, History
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import EpisodeBars
from policyserver.pipelines.market.time_line import RecordedSymbol, TimeLine
from tests.pipelines.market.price_paths import begun
from tests.pipelines.recorded_prices import fair_game

WINDOW, WARMUP = 60, 20


def history(closes: FloatArray) -> History:
    return History(Bars(np.arange(len(closes)), closes, closes, closes, closes, np.zeros(len(closes))), WINDOW)


def episode(recorded: History, first_row: int) -> Episode:
    bars = recorded.bars.slice(first_row, first_row + WINDOW)
    window = EpisodeBars(bars.time_ns, bars.columns(), WARMUP, {"first_row": float(first_row)})
    return Episode(("A",), first_row, window, {"A": recorded}, first_row)


def never() -> bool:
    return False


def values(prediction: Prediction) -> tuple[float, float, float]:
    return prediction.mean, prediction.std, prediction.raw


def play(recorded: History, first_rows: list[int], tracks: Tracks) -> tuple[FloatArray, list[int]]:
    """Play windows side by side; return the forecasts of each at each of its bars, (bars, windows, 3), and how many counted a bar."""
    episodes = [episode(recorded, row) for row in first_rows]
    block, feed = begun(episodes, statistics=STATISTICS)
    forecaster = TrackForecaster(block.view, tracks)
    rows = np.arange(len(episodes))
    forecaster.begin(rows, episodes)
    forecaster.predict(rows)
    forecasts, counted = [block.view.forecast[:, 0].copy()], []
    for _ in range(WINDOW - WARMUP):
        block.fill(rows, feed.next(rows))
        errors, returns = forecaster.learn(rows)
        assert len(errors) == len(returns)
        counted.append(len(errors))
        forecaster.predict(rows)
        forecasts.append(block.view.forecast[:, 0].copy())
    return np.array(forecasts), counted


@pytest.mark.long
def test_the_forecasts_are_those_of_one_regressor_that_goes_through_the_bars_in_order() -> None:
    recorded = history(fair_game(3_000, seed=3))
    regressor, features = ReturnRegressor(RegressorConfig()), TrackFeatures(WINDOW)
    expected: list[tuple[Prediction, dict[str, float] | None]] = []
    for number, close in enumerate(recorded.bars.close.tolist()):
        before = expected[-1] if expected else None
        features.update(close)
        if before is not None and before[1] is not None:
            regressor.learn(before[1], before[0], features.last_return)
        inputs = features.inputs() if number else None
        expected.append((NO_PREDICTION if inputs is None else regressor.predict(inputs), inputs))
    tracks = Tracks(RegressorConfig(), never)
    for first_rows in ([2_940], [0, 1_000], [1_030, 0, 2_000]):  # the last one first
        forecasts, _ = play(recorded, first_rows, tracks)
        for place, first_row in enumerate(first_rows):
            for bar in range(WINDOW - WARMUP + 1):
                assert tuple(forecasts[bar, place]) == values(expected[first_row + WARMUP - 1 + bar][0])
    assert tracks.skipped == 0


def test_the_slow_mean_of_the_features_is_of_as_many_bars_as_an_episode_has() -> None:
    closes = fair_game(500, seed=3)
    features = TrackFeatures(WINDOW)
    for number, close in enumerate(closes.tolist()):
        features.update(close)
        newest = np.log(closes[max(0, number + 1 - WINDOW) : number + 1])
        assert features.inputs()["distance_slow"] == pytest.approx(newest[-1] - newest.mean(), abs=1e-12)


def test_a_forecast_counts_once_for_the_skill_however_many_windows_have_its_bar() -> None:
    recorded = history(fair_game(200, seed=3))
    tracks = Tracks(RegressorConfig(), never)
    counted = [sum(play(recorded, first_rows, tracks)[1]) for first_rows in ([0], [10], [10], [140, 140])]
    assert counted == [40, 10, 0, 40]


def test_an_episode_reads_no_forecast_ahead_that_its_track_would_have_to_make_first() -> None:
    recorded = history(fair_game(5_000, seed=3))
    tracks = Tracks(RegressorConfig(), never)
    first = 1_024 - WARMUP - 10
    track, played = tracks.of("A", recorded), episode(recorded, first)
    block, feed = begun([played], statistics=STATISTICS)
    forecaster, rows = TrackForecaster(block.view, tracks), np.arange(1)
    forecaster.begin(rows, [played])
    for bar in range(14):
        forecaster.predict(rows)
        np.testing.assert_array_equal(block.view.forecast[0, 0], track.forecast(first + WARMUP - 1 + bar))
        kept = track.kept()
        assert kept is not None
        newest = first + WARMUP - 1 + bar
        assert kept.until_ns == (1_023 if newest < 1_024 else 2_047), (
            "a block of bars further than what was asked for, as without reading ahead"
        )
        block.fill(rows, feed.next(rows))
        forecaster.learn(rows)


def test_many_episodes_on_many_tracks_read_what_each_reads_alone() -> None:
    """Begun at different times, so that they read ahead at different bars; all but a few count for their first player alone."""
    histories = [history(fair_game(400, seed=number)) for number in range(5)]
    tracks, alone = Tracks(RegressorConfig(), never), Tracks(RegressorConfig(), never)
    rng = np.random.default_rng(0)
    first_rows = rng.integers(0, 400 - WINDOW, 40).tolist()
    episodes = [dataclasses.replace(episode(histories[row % 5], first), symbols=(f"S{row % 5}",)) for row, first in enumerate(first_rows)]
    episodes = [dataclasses.replace(each, histories={each.symbols[0]: histories[row % 5]}) for row, each in enumerate(episodes)]
    block, feed = begun(episodes, statistics=STATISTICS)
    forecaster = TrackForecaster(block.view, tracks)
    clocks, counted, seen = np.zeros(40, dtype=np.int64), 0, set[tuple[int, int]]()
    forecaster.begin(np.arange(40), episodes)
    for _ in range(60):
        rows = np.flatnonzero((rng.random(40) < 0.6) & (clocks < WINDOW - WARMUP))
        if not len(rows):
            break
        forecaster.predict(rows)
        for row in rows.tolist():
            place = first_rows[row] + WARMUP - 1 + int(clocks[row])
            np.testing.assert_array_equal(block.view.forecast[row, 0], alone.of(f"S{row % 5}", histories[row % 5]).forecast(place))
            seen.add((row % 5, place))
        block.fill(rows, feed.next(rows))
        clocks[rows] += 1
        counted += len(forecaster.learn(rows)[0])
    assert counted == len(seen), "each bar's forecast counts once"


def test_the_errors_that_count_are_those_of_the_forecasts() -> None:
    closes = fair_game(200, seed=3)
    recorded, tracks = history(closes), Tracks(RegressorConfig(), never)
    forecasts, _ = play(recorded, [50], tracks)
    block, feed = begun([episode(recorded, 50)], statistics=STATISTICS)
    forecaster, rows = TrackForecaster(block.view, Tracks(RegressorConfig(), never)), np.arange(1)
    forecaster.begin(rows, [episode(recorded, 50)])
    returns = np.diff(np.log(closes[50 + WARMUP - 1 : 50 + WINDOW]))
    for bar, log_return in enumerate(returns.tolist()):
        forecaster.predict(rows)
        block.fill(rows, feed.next(rows))
        error, zero = forecaster.learn(rows)
        assert error == pytest.approx([(log_return - forecasts[bar, 0, 0]) ** 2])
        assert zero == pytest.approx([log_return**2])


@pytest.mark.long
def test_a_run_that_is_ending_waits_for_no_long_file() -> None:
    looks = count(1)
    track = Track("A", history(fair_game(50_000, seed=3)), RegressorConfig(), lambda: next(looks) > 3)
    assert tuple(track.forecast(49_000)) == values(NO_PREDICTION)
    assert next(looks) == 5, "three blocks were learnt"


@pytest.mark.long
def test_a_model_that_failed_in_the_middle_has_no_bars_ahead_of_its_forecasts_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = history(fair_game(2_000, seed=3))
    undisturbed = Track("A", recorded, RegressorConfig(), never).forecast(1_500)
    track = Track("A", recorded, RegressorConfig(), never)
    learn, calls = ReturnRegressor.learn, count(1)

    def stumble(self: ReturnRegressor, *learnt: Any) -> None:
        if next(calls) == 1_300:
            raise RuntimeError("stumbled")
        learn(self, *learnt)

    monkeypatch.setattr(ReturnRegressor, "learn", stumble)
    with pytest.raises(RuntimeError, match="stumbled"):
        track.forecast(1_500)
    np.testing.assert_array_equal(track.forecast(1_500), undisturbed)


def test_a_frozen_model_stays_as_training_left_it_and_the_other_learns_on() -> None:
    closes = fair_game(600, seed=3)
    bars = history(closes).bars
    test = History(bars, WINDOW, (400, 600), is_test=True)
    frozen = Track("A", test, RegressorConfig(in_test="frozen"), never)
    learning = Track("A", test, RegressorConfig(in_test="continue"), never)
    regressor, features = ReturnRegressor(RegressorConfig()), TrackFeatures(WINDOW)
    newest: tuple[dict[str, float], Prediction] | None = None
    for row, close in enumerate(closes.tolist()):
        features.update(close)
        if newest is not None and row < 400:
            regressor.learn(*newest, features.last_return)
        if row:
            newest = features.inputs(), regressor.predict(features.inputs())
            assert tuple(frozen.forecast(row)) == values(newest[1])
    assert np.array_equal([frozen.forecast(row) for row in range(400)], [learning.forecast(row) for row in range(400)])
    assert not np.array_equal(frozen.forecast(599), learning.forecast(599))
    tracks = Tracks(RegressorConfig(in_test="frozen"), never)
    assert tracks.of("A", test) is not tracks.of("A", History(bars, WINDOW, (500, 600), is_test=True)), "each fold has its own"


def test_symbols_with_bars_at_times_of_their_own_have_the_forecasts_as_of_their_own_newest_bars() -> None:
    recorded = {}
    for place, every in enumerate((1, 3)):
        closes = fair_game(300, seed=place)
        times = every * np.arange(300, dtype=np.int64)
        recorded[f"S{place}"] = RecordedSymbol.of(Bars(times, closes, closes, closes, closes, np.ones(300)), {}, ())
    line = TimeLine.of(("S0", "S1"), recorded)
    assert line.own_rows is not None
    assert line.present is not None
    histories = {name: History(each.bars, WINDOW) for name, each in recorded.items()}
    first, stop = 200, 200 + WINDOW
    bars = EpisodeBars(line.time_ns[first:stop], line.columns[first:stop], WARMUP, present=line.present[first:stop])
    played = Episode(("S0", "S1"), 0, bars, histories, first, line.own_rows[first:stop])
    block, feed = begun([played], statistics=STATISTICS)
    forecaster, rows = TrackForecaster(block.view, Tracks(RegressorConfig(), never)), np.arange(1)
    forecaster.begin(rows, [played])
    tracks = [Track(name, history, RegressorConfig(), never) for name, history in histories.items()]
    for bar in range(WINDOW - WARMUP):
        forecaster.predict(rows)
        own = line.own_rows[first + WARMUP - 1 + bar].tolist()
        assert np.array_equal(block.view.forecast[0], [track.forecast(row) for track, row in zip(tracks, own, strict=True)])
        block.fill(rows, feed.next(rows))
        errors, _ = forecaster.learn(rows)
        assert len(errors) == line.present[first + WARMUP + bar].sum(), "what has no bar of its own teaches nothing"
