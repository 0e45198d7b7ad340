"""What a run can't be played with is a wrong setting, told in one line before any server is asked or started."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest

from policyserver.common.settings import SettingsError, dump_toml, load
from policyserver.pipelines.config import PipelineConfig, PipelineRecordingConfig, PlayedEpisodesConfig, ServerConnectionConfig
from policyserver.pipelines.demo.demo import run_demo
from policyserver.pipelines.demo.setup import DemoConfig, fresh_run, resumed_run
from policyserver.pipelines.forecast.regressor import DEFAULT_MODEL, RegressorConfig
from policyserver.pipelines.replay.run_folder import PIPELINE_FILE
from policyserver.pipelines.replay.run_record import recorded_run
from policyserver.pipelines.run import run_pipeline
from policyserver.pipelines.runtime.stop_signals import StopSignals
from tests.pipelines.recorded_prices import fair_game, write_bars

ADDRESS = "127.0.0.1:9901"


@pytest.mark.long
@pytest.mark.parametrize(
    ("regressor", "message"),
    [
        (RegressorConfig(model="river.nowhere.Model"), r"^regressor\.model\.name: .* received 'river\.nowhere\.Model'"),
        (RegressorConfig(model="river.linear_model.LogisticRegression"), r"^regressor\.model: expected a River regressor"),
        (RegressorConfig(model="..relative"), r"^regressor\.model\.name: expected \"river\.package\.Class\""),
        (RegressorConfig(model={"name": DEFAULT_MODEL, "colour": 1}), r"^regressor\.model\.colour: expected a parameter of"),
        (RegressorConfig(model={"name": DEFAULT_MODEL, "optimizer": "fast"}), r"^regressor\.model\.optimizer: expected Optimizer or none"),
        (RegressorConfig(model="river.tree.ISOUPTreeRegressor"), r"^regressor\.model: expected a regressor that learns .*: AttributeError"),
    ],
    ids=["unknown", "no regressor", "relative", "unknown parameter", "wrong parameter", "of several targets"],
)
def test_a_regressor_that_cannot_be_used_is_a_wrong_setting(regressor: RegressorConfig, message: str, tmp_path: Path) -> None:
    stop = StopSignals()
    config = PipelineConfig(
        server=ServerConnectionConfig(address=f"unix:{tmp_path / 'nobody.sock'}", connect_timeout_s=0.2),
        episodes=PlayedEpisodesConfig(concurrent=4),
        regressor=regressor,
        recording=PipelineRecordingConfig(store=None),
        stop_timeout_s=2.0,
    )
    timer = threading.Timer(3.0, stop.put, ["enough"])
    timer.start()
    try:
        with pytest.raises(SettingsError, match=message) as caught:
            run_pipeline(config, stop)
    finally:
        timer.cancel()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.process  # git's, which is asked for the revision
def test_a_run_that_another_process_plays_is_not_resumed_and_keeps_its_files(tmp_path: Path) -> None:
    folder, config = fresh_run(DemoConfig(runs=tmp_path / "runs"), ADDRESS)
    with recorded_run(config, folder, lambda: None):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(SettingsError, match="expected a folder of this run alone"):
            run_demo(DemoConfig(resume=True, runs=tmp_path / "runs"), io.StringIO(), StopSignals())
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.long
def test_a_resumed_run_whose_regressor_or_prices_are_gone_is_refused(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "AAA.csv", fair_game(500, seed=1))
    folder, config = fresh_run(DemoConfig(files=(file,), runs=tmp_path / "runs"), ADDRESS)
    again = DemoConfig(resume=True, runs=tmp_path / "runs")
    resumed_run(folder, again, ADDRESS)
    settings = (folder / PIPELINE_FILE).read_text(encoding="utf-8")
    model = 'model = "river.linear_model.LinearRegression"'
    assert model in settings
    (folder / PIPELINE_FILE).write_text(settings.replace(model, 'model = "river.nowhere.Model"'), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^regressor\.model\.name: "):
        resumed_run(folder, again, ADDRESS)
    (folder / PIPELINE_FILE).write_text(dump_toml(config), encoding="utf-8")
    file.unlink()
    with pytest.raises(SettingsError, match=r"^prices\.recorded\.paths: .*AAA\.csv"):
        resumed_run(folder, again, ADDRESS)


@pytest.mark.parametrize(
    ("limit", "prices", "names"),
    [
        ('name = "group_exposure"\ngroup = "tech"\nsymbols = ["AAA", "ZZZ"]', "symbols_per_episode = 4", "AAA, BBB, CCC, DDD"),
        ('name = "max_position"\nunits = 1.0\nsymbols = ["ZZZ"]', "symbols_per_episode = 4", "AAA, BBB, CCC, DDD"),
        ('name = "group_exposure"\ngroup = "tech"\nsymbols = ["ZZZ"]', "", "price"),
        ('name = "group_exposure"\ngroup = "tech"\nsymbols = ["ZZZ"]', 'recorded.paths = ["{folder}"]\nsymbols_per_episode = 2', "A, B"),
    ],
    ids=["group", "position", "one of many", "files"],
)
def test_a_limit_on_a_symbol_that_no_episode_has_is_refused(limit: str, prices: str, names: str, tmp_path: Path) -> None:
    for name in "AB":
        write_bars(tmp_path / f"{name}.csv", fair_game(500, seed=1))
    file = tmp_path / "pipeline.toml"
    risk = f'[[rules.risk]]\nname = "gross_exposure"\n[[rules.risk]]\n{limit}\n'
    on = prices.replace("{folder}", str(tmp_path))
    file.write_text(f'[rules]\nactions = "target_weight"\n{risk}[prices]\n{on}\n', encoding="utf-8")
    message = rf"^rules\.risk\[1\]\.symbols: expected names among {names}, as an episode calls its symbols, received 'ZZZ'"
    with pytest.raises(SettingsError, match=message):
        run_pipeline(load(PipelineConfig, file), StopSignals())
    with pytest.raises(SettingsError, match=message):
        fresh_run(DemoConfig(config=file, runs=tmp_path / "runs"), ADDRESS)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("actions", ["sell_hold_buy", "target_position", "limit_offsets"])
def test_actions_of_one_symbol_are_refused_where_an_episode_trades_several(actions: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(f'rules.actions = "{actions}"\nprices.symbols_per_episode = 2\n', encoding="utf-8")
    message = r"^rules\.actions: expected a scheme for the 2 symbols of an episode, such as target_weight, received \w+, for 1$"
    with pytest.raises(SettingsError, match=message):
        run_pipeline(load(PipelineConfig, file), StopSignals())
    with pytest.raises(SettingsError, match=message):
        fresh_run(DemoConfig(config=file, runs=tmp_path / "runs"), ADDRESS)
    assert not (tmp_path / "runs").exists()
