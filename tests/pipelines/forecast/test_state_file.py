"""The file of what a forecaster has learnt: read back as written, compared before anything is unpickled, refused with both sides."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest

from policyserver.common.settings import SettingsError
from policyserver.pipelines.forecast.block_forecaster import INPUTS
from policyserver.pipelines.forecast.forecasts import unlearnt_state
from policyserver.pipelines.forecast.regressor import Learnt, RegressorConfig, ReturnRegressor
from policyserver.pipelines.forecast.state_file import STATE_FILE, ForecastState, KeptModel, read_state, require_models

INTERVALS = {"AAA": 60 * 10**9, "BBB": 3600 * 10**9}
UNPICKLED: list[str] = []


def note(text: str) -> str:
    UNPICKLED.append(text)
    return text


class Bomb:
    """What a stranger may put into a pickle."""

    def __reduce__(self) -> Any:
        return note, ("code ran",)


def kept(labels: int = 50) -> KeptModel:
    regressor = ReturnRegressor(RegressorConfig())
    for number in range(labels):
        features = {"x": 0.01 * (number % 7)}
        regressor.learn(features, regressor.predict(features), 0.005 * (number % 5))
    return KeptModel.of(regressor.learnt(), until_ns=1_577_836_800_000_000_000)


def state(config: RegressorConfig | None = None, window_bars: int = 60, **changes: Any) -> ForecastState:
    empty = unlearnt_state(config or RegressorConfig(), window_bars, INTERVALS, is_recorded=True)
    return dataclasses.replace(empty, **{"models": {"AAA": kept(), "BBB": kept(9)}} | changes)


def read(path: Path, sha256: str | None = None) -> ForecastState:
    found = read_state(RegressorConfig(state=path, state_sha256=sha256))
    assert found is not None
    return found


def test_a_state_is_read_back_as_it_was_written_from_its_file_or_its_folder(tmp_path: Path) -> None:
    written = state(episodes={7: 128})
    written.write(tmp_path / STATE_FILE)
    for path in (tmp_path, tmp_path / STATE_FILE):
        assert dataclasses.replace(read(path), data=b"") == written
    assert read(tmp_path).data == (tmp_path / STATE_FILE).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    learnt = read(tmp_path).models["AAA"].learnt()
    assert isinstance(learnt, Learnt)
    assert learnt.learned == 50
    assert read_state(RegressorConfig()) is None


def test_a_state_that_was_cut_or_changed_anywhere_is_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    bomb = KeptModel.of(Learnt(Bomb(), (0.0, 0.0, 0.0, 0.0), 1), 0)
    data, path = state(models={"A": bomb}).to_bytes(), tmp_path / STATE_FILE
    header = data.index(b"\n", data.index(b"\n") + 1)
    for place in (40, header + 12, len(data) - 20):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(SettingsError, match=r"^regressor\.state: .*: expected SHA-256 .*, received .*: the file is damaged"):
            read(tmp_path)
    for length in (0, 10, 30, header + 3, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(SettingsError, match=r"^regressor\.state: .*: expected "):
            read(tmp_path)
    path.write_bytes(data)
    with pytest.raises(SettingsError, match=r"^regressor\.state_sha256: expected 00ff of .*, received [0-9a-f]{64}"):
        read(tmp_path, "00ff")
    loaded = read(tmp_path, hashlib.sha256(data).hexdigest())
    assert UNPICKLED == []
    require_models(loaded)
    assert UNPICKLED == ["code ran"], "as the guide says of a file that one names"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"time,open,high\n", "expected a forecast state, received a file that begins with b'time,open,high"),
        (b"policyserver forecast state 1\nabc\n{}\n", "expected a forecast state of version 2, received version 1"),
        (None, "No such file or directory"),
    ],
)
def test_what_is_no_state_is_refused_in_one_line(data: bytes | None, problem: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / STATE_FILE).write_bytes(data)
    with pytest.raises(SettingsError) as caught:
        read(tmp_path / STATE_FILE)
    assert caught.value.key == "regressor.state"
    assert problem in str(caught.value)
    assert STATE_FILE in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (state(river="0.1.0"), r"expected River \S+, as this run has, received a state of River 0\.1\.0"),
        (state(target="volatility"), "expected target log-return of the next bar, as this run has, received a state of target volatility"),
        (state(features=INPUTS[::-1]), "expected features distance_slow, .*, as this run has, received a state of features return_1, "),
        (state(features=INPUTS[:2]), "expected features .* received a state of features distance_slow, distance_fast$"),
        (state(window_bars=61), "bars, warm-up included, 60, as this run has, received a state of .* 61"),
        (
            state(RegressorConfig(memory_steps=10)),
            r"expected regressor\.memory_steps 20000, .* received a state of regressor\.memory_steps 10$",
        ),
        (
            state(RegressorConfig(model="river.rules.AMRules")),
            r"regressor\.model river\.linear_model\.Linear.* received .*river\.rules\.AMRules",
        ),
        (state(kind="blocks"), "expected models of symbols, as this run has, received a state of models of blocks"),
        (
            state(bar_intervals_ns={"CCC": 1, "BBB": 60 * 10**9}),
            "expected BBB in bars of 1h, as this run has, received a state of BBB in bars of 1min$",
        ),
    ],
    ids=["river", "target", "order of features", "features", "window", "setting", "model", "kind", "bars"],
)
def test_a_state_of_something_else_is_refused_with_both_sides(changed: ForecastState, problem: str) -> None:
    wanted = unlearnt_state(RegressorConfig(), 60, INTERVALS, is_recorded=True)
    state().require(wanted)
    with pytest.raises(SettingsError, match=f"^regressor\\.state: .*{problem}"):
        changed.require(wanted)


def test_symbols_of_one_run_alone_and_months_of_other_lengths_are_not_compared_as_bars() -> None:
    day = 86_400 * 10**9
    wanted = unlearnt_state(RegressorConfig(), 60, {"AAA": 31 * day, "BBB": day}, is_recorded=True)
    state(bar_intervals_ns={"AAA": 28 * day, "CCC": 60 * 10**9}).require(wanted)


def test_a_block_learns_all_symbols_and_so_its_bars_are_compared_under_any_name() -> None:
    wanted = unlearnt_state(RegressorConfig(), 60, {"AAA": 60 * 10**9}, is_recorded=False)
    state(kind="blocks", bar_intervals_ns={"BBB": 60 * 10**9}).require(wanted)
    with pytest.raises(SettingsError, match=r"expected bars of 1min, as this run has, received a state of bars of 1h$"):
        state(kind="blocks", bar_intervals_ns={"BBB": 3600 * 10**9}).require(wanted)


def test_what_does_not_make_the_model_may_be_another_in_a_later_run() -> None:
    wanted = unlearnt_state(RegressorConfig(in_test="frozen", state=Path("x"), save_every_s=1.0), 60, INTERVALS, is_recorded=True)
    state().require(wanted)


@pytest.mark.parametrize(
    ("pickled", "problem"),
    [
        pytest.param(b"\x80\x05cnowhere\nModel\n.", "No module named 'nowhere'", id="of no module"),
        pytest.param(pickle.dumps(3), "expected what a model has learnt, received int", id="of something else"),
    ],
)
def test_a_model_that_can_not_be_unpickled_is_named(pickled: bytes, problem: str) -> None:
    with pytest.raises(SettingsError, match=rf"^regressor\.state: expected the model of BBB .*: {problem}$"):
        require_models(state(models={"AAA": kept(), "BBB": KeptModel(pickled, 1, 0)}))


def test_a_digest_without_a_state_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"state_sha256: expected none without regressor\.state, received 'ab'"):
        RegressorConfig(state_sha256="ab")
