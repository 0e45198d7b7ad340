"""A pipeline is the same up to a bar whatever comes after it; a part that isn't is found and named, with a place where it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.audit.changed_future import check_changed_future
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.forecast import forecasts
from policyserver.pipelines.forecast.block_forecaster import BlockForecaster
from policyserver.pipelines.forecast.tracks import Track
from policyserver.pipelines.market.adjust import AdjustConfig, adjust
from policyserver.pipelines.market.bars import BarRows, Bars, FloatArray
from policyserver.pipelines.market.catalog import Catalog, CatalogConfig
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.files import reader
from policyserver.pipelines.market.files.checks import FileRows, check_rows
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.pipelines.market.files.faults import FaultPolicies, Findings, Policy
from policyserver.pipelines.market.files.reader import Recording
from policyserver.pipelines.market.intervals import MINUTE_NS
from policyserver.pipelines.market.processes import process as process_module
from policyserver.pipelines.market.processes.path_bars import bars_from_paths
from policyserver.pipelines.market.resample import ResampleConfig, resample
from policyserver.pipelines.market.split import Fold, Side, SplitConfig
from policyserver.pipelines.prices.recorded import RecordedSource
from policyserver.pipelines.prices.simulated import SimulatedSource
from tests.pipelines.audit.audited import changed_future, dividend_file, parts, seen, small, write_bars
from tests.pipelines.audit.leaks import HERE, let_parts_see_episodes
from tests.pipelines.recorded_prices import TREE

Plant = Callable[[pytest.MonkeyPatch], None]


def with_loaded(monkeypatch: pytest.MonkeyPatch, change: Callable[[Recording], Bars]) -> None:
    """Let what a catalog loads be changed."""
    load = Catalog.load

    def changed(catalog: Catalog, symbol: str) -> Recording:
        recording = load(catalog, symbol)
        return replace(recording, bars=change(recording))

    monkeypatch.setattr(Catalog, "load", changed)


def with_episodes(monkeypatch: pytest.MonkeyPatch, source: type, change: Callable[[FloatArray], FloatArray]) -> None:
    """Let the bars of a source's episodes be changed."""
    make = source.episodes  # type: ignore[attr-defined]

    def changed(self: Any, numbers: Any) -> list[Episode]:
        return [replace(each, bars=replace(each.bars, bars=change(each.bars.bars))) for each in make(self, numbers)]

    monkeypatch.setattr(source, "episodes", changed)


# Simulated prices --------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_pipeline_without_a_fault_has_none_found() -> None:
    result = changed_future(small())
    assert result.faults == ()
    assert "8 episodes, 4 cuts through 32 of them" in result.looked_at


@pytest.mark.long
@pytest.mark.parametrize("observer", [{"name": f"{HERE}.NextReturn", "strength": 1e-4}, f"{HERE}.TomorrowsVolume"])
def test_an_observer_that_sees_the_next_bar(observer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    let_parts_see_episodes(monkeypatch)
    result = changed_future(seen(small(), observer))
    name = "NextReturn: next_return" if isinstance(observer, dict) else "TomorrowsVolume: volume"
    assert parts(result) == f"observed {name}"
    (fault,) = result.faults
    assert fault.episode.split("-")[0] in ("AAA", "BBB", "CCC", "DDD")
    assert fault.bar is not None
    assert 0 <= fault.bar <= 40
    assert fault.before != fault.after
    assert f"in {fault.episode} at bar {fault.bar}: " in result.text()


@pytest.mark.long
def test_a_reward_of_the_bar_after(monkeypatch: pytest.MonkeyPatch) -> None:
    let_parts_see_episodes(monkeypatch)
    assert parts(changed_future(small(rewards=(f"{HERE}.NextBarsReward",)))) == "rewarded: reward"


@pytest.mark.long
def test_an_end_that_knows_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    let_parts_see_episodes(monkeypatch)
    assert "end" in parts(changed_future(small(ends=(f"{HERE}.LeavesBeforeTheFall",)), cuts=8))


@pytest.mark.long
def test_a_scaler_that_is_fitted_to_whole_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    with_episodes(monkeypatch, SimulatedSource, lambda bars: bars / np.append(np.full(4, bars[..., 3].mean()), 1.0))
    assert "price: close" in parts(changed_future(small()))


@pytest.mark.long
def test_prices_smoothed_with_the_bar_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    with_episodes(monkeypatch, SimulatedSource, lambda bars: (bars + np.concatenate([bars[1:], bars[-1:]])) / 2.0)
    found = parts(changed_future(small()))
    assert "price: close" in found
    assert "observed Returns: return_1" in found


@pytest.mark.long
def test_a_volume_that_is_drawn_with_the_range_of_the_whole_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def widest(*arguments: Any) -> Any:
        bars = bars_from_paths(*arguments)
        return replace(bars, volume=bars.volume / (bars.high - bars.low).max(axis=1, keepdims=True))

    monkeypatch.setattr(process_module, "bars_from_paths", widest)
    assert parts(changed_future(small())) == "price: volume"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["last close", "last open"])
def test_a_fill_at_a_price_of_the_bar_before(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill = SimulatedBroker.fill

    def at_once(broker: Any, rows: Any, bar: BarRows, present: Any = None) -> None:
        of_last = broker.__dict__.setdefault("last_opens", np.array(broker._accounts.price))
        before = np.array((broker._accounts.price if kind == "last close" else of_last)[rows])
        of_last[rows] = bar.open
        fill(broker, rows, replace(bar, columns=np.concatenate([before[..., None], bar.columns[..., 1:]], axis=-1)), present)

    monkeypatch.setattr(SimulatedBroker, "fill", at_once)
    assert "fill" in parts(changed_future(small())).splitlines()


# Recorded prices ---------------------------------------------------------------------------------------------------------------------


def recorded(tmp_path: Path, **columns: Any) -> PipelineConfig:
    """A pipeline on two files."""
    files = tuple(write_bars(tmp_path / f"{name}.csv", 400, seed, **columns) for seed, name in enumerate(("ONE", "TWO")))
    return replace(small(concurrent=16, files=files), regressor=TREE)


@pytest.mark.long
def test_files_without_a_fault_have_none_found(tmp_path: Path) -> None:
    assert changed_future(recorded(tmp_path)).faults == ()


@pytest.mark.slow
def test_a_scaler_that_is_fitted_to_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_loaded(
        monkeypatch, lambda recording: Bars(recording.bars.time_ns, *(recording.bars.columns()[:, 0] / recording.bars.high.max()).T)
    )
    assert "price: close" in parts(changed_future(recorded(tmp_path)))


@pytest.mark.long
def test_a_forecast_that_learns_over_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recorded(tmp_path)
    monkeypatch.setattr(forecasts, "TrackForecaster", lambda view, tracks: BlockForecaster(view, config.regressor))
    assert "forecast: prediction" in parts(changed_future(config))


@pytest.mark.slow
def test_a_forecast_that_is_fitted_to_the_whole_file_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Track._begin

    def fitted(track: Track) -> None:
        begin(track)
        for close in track._history.bars.close.tolist():
            track._step(close, learns=True)
        learnt = track._regressor
        begin(track)
        track._regressor = learnt

    monkeypatch.setattr(Track, "_begin", fitted)
    assert "forecast: prediction" in parts(changed_future(recorded(tmp_path)))


@pytest.mark.slow
def test_longer_bars_that_are_stamped_with_their_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resampled(recording: Recording, shift: int) -> Bars:
        bars = resample(recording.bars, ResampleConfig("3min"))
        return replace(bars, time_ns=bars.time_ns - shift)

    config = recorded(tmp_path)
    with monkeypatch.context() as right:
        with_loaded(right, lambda recording: resampled(recording, 0))
        assert changed_future(config).faults == ()
    with_loaded(monkeypatch, lambda recording: resampled(recording, 3 * MINUTE_NS))
    assert "price: close" in parts(changed_future(config))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["actions", "adjusted_close"])
def test_prices_adjusted_to_the_last_bar(by: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(files=(dividend_file(tmp_path / "DIV.csv", 400, seed=1),))
    with monkeypatch.context() as right:
        with_loaded(right, lambda recording: adjust(recording.bars, recording.extras, AdjustConfig(by, anchor="first")))
        assert changed_future(config).faults == ()
    with_loaded(monkeypatch, lambda recording: adjust(recording.bars, recording.extras, AdjustConfig(by, anchor="last")))
    assert "price: close" in parts(changed_future(config))


@pytest.mark.long
def test_a_further_column_that_is_a_row_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Catalog.load

    def early(catalog: Catalog, symbol: str) -> Recording:
        recording = load(catalog, symbol)
        return replace(recording, extras={name: np.append(values[1:], values[-1]) for name, values in recording.extras.items()})

    monkeypatch.setattr(Catalog, "load", early)
    file = write_bars(tmp_path / "ONE.csv", 400, seed=1, sentiment=np.sin(np.arange(400.0)))
    catalog = CatalogConfig((str(file),), files=FilesConfig(columns=("sentiment",)))
    config = seen(small(prices={"recorded": catalog}), {"name": "exogenous", "columns": ["sentiment"]})
    assert parts(changed_future(config)).splitlines() == ["price: further column 1", "observed Exogenous: sentiment"]


@pytest.mark.slow
def test_windows_that_are_chosen_by_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = RecordedSource._episode

    def chosen(source: RecordedSource, number: int) -> Episode:
        """Take the window of three whose price rises most."""
        return max(
            (make(source, number + 2 * more) for more in range(3)), key=lambda each: each.bars.bars[-1, 0, 3] / each.bars.bars[0, 0, 3]
        )

    monkeypatch.setattr(RecordedSource, "_episode", lambda source, number: replace(chosen(source, number), number=number))
    assert "episode" in parts(changed_future(recorded(tmp_path), cuts=8)).splitlines()


@pytest.mark.slow
def test_holes_that_are_filled_with_the_bar_that_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = check_rows

    def filled(series: FileRows, findings: Findings) -> Any:
        for name in ("open", "high", "low", "close"):
            values = series.columns[name]
            for row in np.flatnonzero(np.isnan(values[:-1]))[::-1].tolist():
                values[row] = values[row + 1]
        return check(series, findings)

    monkeypatch.setattr(reader, "check_rows", filled)
    holes = np.where(np.arange(400) % 4 == 1, np.nan, 1.0)
    file = write_bars(tmp_path / "HOLES.csv", 400, seed=1)
    lines = file.read_text(encoding="utf-8").splitlines()
    for row in np.flatnonzero(np.isnan(holes)).tolist():
        time, *_, volume = lines[row + 1].split(",")
        lines[row + 1] = f"{time},,,,,{volume}"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert "price: close" in parts(changed_future(small(concurrent=16, files=(file,)), cuts=8))


@pytest.mark.slow
def test_a_spike_that_is_known_as_one_by_the_bar_that_follows(tmp_path: Path) -> None:
    """Dropping spikes is a look ahead that a user may choose."""
    file = write_bars(tmp_path / "SPIKES.csv", 400, seed=1)
    lines = file.read_text(encoding="utf-8").splitlines()
    for row in range(10, 400, 7):
        time, open_, _, low, _, volume = lines[row].split(",")
        lines[row] = f"{time},{open_},250.0,{low},250.0,{volume}"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    policies: tuple[tuple[Policy, bool], ...] = (("keep", False), ("drop", True))
    for policy, found in policies:
        config = small(concurrent=16, files=(file,))
        assert config.prices.recorded is not None
        files = replace(config.prices.recorded.files, faults=FaultPolicies(spike=policy))
        config = replace(config, prices=replace(config.prices, recorded=replace(config.prices.recorded, files=files)))
        assert bool(changed_future(config, cuts=12).faults) == found


@pytest.mark.slow
def test_a_source_that_is_not_changed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that can't reach the prices says so, and finds no pipeline clean."""
    init = Catalog.__init__
    monkeypatch.setattr(Catalog, "__init__", lambda catalog, config, change=None: init(catalog, config))
    assert parts(changed_future(recorded(tmp_path))) == "prices"


@pytest.mark.long
def test_what_differs_by_itself_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part with random numbers of its own."""
    rng = np.random.default_rng()
    with_episodes(monkeypatch, SimulatedSource, lambda bars: bars * np.append(np.ones(4), rng.random()))
    result = changed_future(small())
    assert parts(result) == "price: volume"
    assert "between two runs on the same bars" in result.text()


@pytest.mark.slow
def test_a_split_whose_training_reaches_into_the_testing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recorded(tmp_path)
    config = replace(config, prices=replace(config.prices, split=SplitConfig(train_fraction=0.5)))
    assert changed_future(config, cuts=1).faults == ()
    span = Fold.of

    def wide(fold: Fold, side: Side) -> tuple[int, int]:
        first, last = span(fold, side)
        return (first, last + 60) if side == "train" else (first, last)

    monkeypatch.setattr(Fold, "of", wide)
    assert "split" in parts(changed_future(config, cuts=1)).splitlines()


@pytest.mark.long
@pytest.mark.parametrize("skip_frame", [1, 3])
def test_blocks_whose_episodes_end_early_between_questions_are_cut_at_what_each_has_reached(skip_frame: int) -> None:
    """Their forecaster has learnt the same from each of them then; bars are counted, not questions, and an end need not be at one."""
    config = small(concurrent=6, prices={"skip_frame": skip_frame}, ends=({"name": "drawdown_call", "fraction": 0.02},))
    result = check_changed_future(config, range(18), 6, 4)
    assert result.faults == (), result.text()
    assert result.looked_at.startswith("18 episodes, 4 cuts through ")
