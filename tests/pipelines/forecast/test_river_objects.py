"""Any River regressor is made of a configuration: nested objects by name, and what can't be made is refused by key before a run begins."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from river import base, compose

from policyserver.common.settings import SettingsError, dump_toml, load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.forecast.regressor import RegressorConfig, build_model, try_out
from policyserver.pipelines.forecast.river_objects import make, make_regressor, regressors
from policyserver.pipelines.listing import schemes

NESTED = """
[regressor.model]
name = "river.compose.Pipeline"
steps = [
  { name = "river.preprocessing.StandardScaler" },
  { name = "river.linear_model.LinearRegression", optimizer = { name = "river.optim.Adam", lr = 0.01 }, loss = "river.optim.losses.Huber" },
]
"""
TREES = """
[regressor.model]
name = "river.ensemble.BaggingRegressor"
n_models = 3

[regressor.model.model]
name = "river.tree.HoeffdingTreeRegressor"
grace_period = 50
leaf_model = { name = "river.linear_model.PARegressor", C = 0.1 }
"""
BASE: dict[str, Any] = {"name": "river.linear_model.LinearRegression"}
OWN = f"python:{__name__}"


class Own(base.Regressor):  # type: ignore[misc]
    """Predicts what it was told to."""

    def __init__(self, value: float, seed: int | None = None) -> None:
        self.value = value
        self.seed = seed

    def learn_one(self, x: dict[str, float], y: float) -> None:
        """Learn nothing."""

    def predict_one(self, x: dict[str, float]) -> float:
        return self.value


class Unpicklable(Own):
    def __reduce__(self) -> str:
        raise TypeError("not this one")


def configured(text: str, tmp_path: Path) -> PipelineConfig:
    file = tmp_path / "pipeline.toml"
    file.write_text(text, encoding="utf-8")
    return load(PipelineConfig, file)


def test_a_pipeline_of_a_scaler_and_a_line_with_an_optimizer_is_made_as_written(tmp_path: Path) -> None:
    model = build_model(configured(NESTED, tmp_path).regressor)
    assert list(model.steps) == ["StandardScaler", "LinearRegression"], "a pipeline gets no other scaler"
    line = model["LinearRegression"]
    assert (type(line.optimizer).__name__, line.optimizer.lr.learning_rate, type(line.loss).__name__) == ("Adam", 0.01, "Huber")


def test_an_ensemble_of_trees_is_made_as_written_and_scaled(tmp_path: Path) -> None:
    model = build_model(configured(TREES, tmp_path).regressor)
    assert list(model.steps) == ["StandardScaler", "BaggingRegressor"]
    trees = list(model["BaggingRegressor"])
    assert [(type(tree).__name__, tree.grace_period, tree.leaf_model.C) for tree in trees] == [("HoeffdingTreeRegressor", 50, 0.1)] * 3


@pytest.mark.parametrize("text", [NESTED, TREES], ids=["line", "trees"])
def test_what_a_run_writes_down_is_read_back_to_the_same_model(text: str, tmp_path: Path) -> None:
    config = configured(text, tmp_path)
    again = configured(dump_toml(config), tmp_path)
    assert again.regressor == config.regressor
    assert repr(build_model(again.regressor)) == repr(build_model(config.regressor))


@pytest.mark.parametrize(
    ("model", "key", "problem"),
    [
        (BASE | {"optimizer": {"name": "river.optim.Adam", "rate": 1}}, "optimizer.rate", "expected a parameter of river.optim.Adam (lr,"),
        (
            BASE | {"optimizer": {"name": "river.optim.Adam", "lr": "big"}},
            "optimizer.lr",
            "expected int or float or Scheduler, received 'big'",
        ),
        (BASE | {"optimizer": {"lr": 0.1}}, "optimizer.name", 'expected "river.package.Class", or "python:package.module.Class"'),
        (BASE | {"optimizer": "river.preprocessing.StandardScaler"}, "optimizer", "expected Optimizer or none, received StandardScaler"),
        (
            BASE | {"optimizer": {"name": "river.optim.Nadir"}},
            "optimizer.name",
            "received 'river.optim.Nadir': module 'river.optim' has no",
        ),
        (BASE | {"clip_gradient": "python:nowhere.limit"}, "clip_gradient", "received 'python:nowhere.limit': No module"),
        ({"name": "river.ensemble.BaggingRegressor"}, "model", "expected a value, which river.ensemble.BaggingRegressor needs"),
        ({"name": "river.ensemble.EWARegressor", "models": [BASE, 3]}, "models[1]", "expected Regressor, received 3"),
        (
            {"name": "river.ensemble.EWARegressor", "models": BASE},
            "models",
            "expected list[river.base.regressor.Regressor], received Linear",
        ),
        ({"name": "river.compose.Pipeline", "steps": "all"}, "steps", "expected a list, received 'all'"),
        ({"name": "river.tree.HoeffdingTreeRegressor", "max_depth": True}, "max_depth", "expected int or none, received True"),
        (BASE | {"l1": 1.0, "l2": 1.0}, "", "expected parameters that river.linear_model.LinearRegression takes, received {'l1'"),
        ("river.preprocessing.StandardScaler", "", "expected a River regressor, or a pipeline that ends in one, received StandardScaler"),
        (
            {"name": "river.compose.Pipeline", "steps": ["river.preprocessing.MinMaxScaler"]},
            "",
            "received Pipeline that ends in MinMaxScaler",
        ),
        ({"name": "river.compose.Pipeline"}, "", "expected a River regressor, or a pipeline that ends in one, received Pipeline"),
    ],
)
def test_what_can_not_be_made_is_refused_by_key_with_both_sides(model: Any, key: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_regressor(model, "regressor.model")
    assert caught.value.key == "regressor.model" + (f".{key}" if key else "")
    assert problem in caught.value.problem
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["os.system", "tests.pipelines.forecast.code_that_runs.Model", "river.base.base.sys", 3, None])
def test_no_code_is_imported_but_river_s_and_what_is_named_as_the_user_s_own(name: object) -> None:
    with pytest.raises(SettingsError, match=r"^regressor\.model\.optimizer\.name: expected"):
        make(BASE | {"optimizer": {"name": name}}, "regressor.model")
    assert "tests.pipelines.forecast.code_that_runs" not in sys.modules


def test_reading_a_configuration_imports_nothing(tmp_path: Path) -> None:
    configured('[regressor]\nmodel = "python:tests.pipelines.forecast.code_that_runs.Model"\n', tmp_path)
    assert "tests.pipelines.forecast.code_that_runs" not in sys.modules


def test_a_model_and_functions_of_one_s_own_are_named_by_import_path() -> None:
    assert make({"name": f"{OWN}.Own", "value": 2}, "regressor.model").value == 2
    transformed = {"regressor": BASE, "func": "python:math.asinh", "inverse_func": "python:math.sinh"}
    model = make_regressor({"name": "river.compose.TargetTransformRegressor"} | transformed, "regressor.model")
    model.learn_one({"x": 1.0}, 1.0)
    with pytest.raises(SettingsError, match=r"^regressor\.model\.name: expected a class, received 'python:math\.sinh'"):
        make("python:math.sinh", "regressor.model")


def test_none_stands_for_no_value_where_there_may_be_none() -> None:
    assert make({"name": "river.forest.ARFRegressor", "max_features": "none", "metric": "none"}, "m").max_features is None
    assert make({"name": "river.preprocessing.StandardScaler", "window_size": "none"}, "m").window_size is None


def test_a_seed_that_is_not_given_is_a_function_of_the_place() -> None:
    def seeds() -> list[int]:
        forest = {"name": "river.forest.AMFRegressor"}
        made = make({"name": "river.ensemble.EWARegressor", "models": [forest, forest, forest | {"seed": 7}]}, "regressor.model")
        return [each.seed for each in made.models]

    assert seeds() == seeds()
    first, second, third = seeds()
    assert third == 7
    assert first != second


@pytest.mark.long
def test_every_regressor_of_river_that_can_be_made_is_repeated_bit_for_bit() -> None:
    rng = random.Random(1)
    rows = [({"a": rng.gauss(0, 1), "b": rng.gauss(0, 1)}, rng.gauss(0, 1)) for _ in range(60)]
    given: dict[str, Any] = {
        "model": BASE,
        "regressor": BASE,
        "models": [BASE, BASE | {"l2": 0.1}],
        "steps": [BASE],
        "statistic": "river.stats.Mean",
    }
    given |= {
        "func": "python:math.asinh",
        "inverse_func": "python:math.sinh",
        "y_min": -1.0,
        "y_max": 1.0,
        "size": 5,
        "p": 0.5,
        "budget": 100,
    }
    given |= {"metric": "river.metrics.MAE", "policy": {"name": "river.bandit.EpsilonGreedy", "epsilon": 0.5}}
    made = 0
    for path, _, parameters in regressors():
        needed = {name: given[name] for text in parameters if " = " not in text and (name := text.partition(":")[0])}
        if path == "river.tree.ISOUPTreeRegressor":  # of several targets
            continue
        forecasts = []
        for _ in range(2):
            model = make_regressor({"name": path} | needed, "regressor.model")
            forecasts.append([(model.predict_one(x), model.learn_one(x, y))[0] for x, y in rows])
        assert forecasts[0] == forecasts[1], path
        made += 1
    assert made > 25


def test_a_model_that_can_not_be_saved_is_refused_unless_it_is_not_to_be() -> None:
    model = {"name": f"{OWN}.Unpicklable", "value": 1.0}
    with pytest.raises(SettingsError, match=r"^regressor\.model: expected a model that can be pickled .*: not this one"):
        try_out(RegressorConfig(model=model), ("x",))
    try_out(RegressorConfig(model=model, save_every_s=None), ("x",))


@pytest.mark.long
def test_the_schemes_that_are_listed_have_the_regressors_with_their_parameters() -> None:
    listed = schemes()
    assert "  river.linear_model.LinearRegression: Linear regression.\n    optimizer: optim.base.Optimizer | None = none\n" in listed
    assert "  river.compose.Pipeline: " in listed
    assert isinstance(make("river.compose.Pipeline", "m"), compose.Pipeline)
