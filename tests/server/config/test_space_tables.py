"""Every kind of space can be written into the configuration file, and what is wrong there is refused by its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given

from policyserver.common.settings import SettingsError, dump_toml, load
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.space_tables import space_from_config
from tests.common.space_strategies import SPACES

BOX = {"type": "Box", "low": -1.0, "high": 1.0, "shape": [2]}
EVERYTHING = """
[spaces.observation]
type = "Dict"
[spaces.observation.spaces.price]
type = "Box"
low = [0.0, -1.0]
high = [1.0, inf]
shape = [2]
dtype = "float64"
[spaces.observation.spaces.day]
type = "Discrete"
n = 7
start = 1
[spaces.observation.spaces.screen]
type = "Box"
low = 0
high = 255
shape = [2, 3, 1]
dtype = "uint8"
[spaces.observation.spaces.parts]
type = "Tuple"
[[spaces.observation.spaces.parts.spaces]]
type = "MultiBinary"
n = [2, 2]
[[spaces.observation.spaces.parts.spaces]]
type = "MultiDiscrete"
nvec = [[2, 4], [3, 3]]
start = [[0, -1], [5, 0]]
dtype = "int32"
[[spaces.observation.spaces.parts.spaces]]
type = "Box"
low = -inf
high = inf
shape = []
[[spaces.observation.spaces.parts.spaces]]
type = "Dict"
spaces.inner = { type = "Box", low = [[-1], [0]], high = inf, shape = [2, 2], dtype = "int64" }
[spaces.action]
type = "MultiDiscrete"
nvec = [3, 2]
start = [-1, 0]
"""


def test_a_file_can_say_every_kind_of_space(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(EVERYTHING)
    config = load(ServerConfig, file)
    spaces = gym.spaces
    expected = spaces.Dict(
        price=spaces.Box(np.array([0.0, -1.0]), np.array([1.0, np.inf]), dtype=np.float64),
        day=spaces.Discrete(7, start=1),
        screen=spaces.Box(0, 255, (2, 3, 1), np.uint8),
        parts=spaces.Tuple(
            [
                spaces.MultiBinary([2, 2]),
                spaces.MultiDiscrete(np.array([[2, 4], [3, 3]]), dtype=np.int32, start=np.array([[0, -1], [5, 0]])),
                spaces.Box(-np.inf, np.inf, ()),
                spaces.Dict(inner=spaces.Box(np.array([[-1, -1], [0, 0]]), np.full((2, 2), 2**63 - 1), (2, 2), np.int64)),
            ]
        ),
    )
    assert config.spaces.observation_space == expected
    assert config.spaces.action_space == spaces.MultiDiscrete([3, 2], start=[-1, 0])
    file.write_text(dump_toml(config))
    assert load(ServerConfig, file) == config


def table_of(space: gym.Space[Any]) -> dict[str, Any]:
    """Write a space as its table."""
    match space:
        case gym.spaces.Box():
            low, high = (bound.tolist() if bound.size else 0 for bound in (space.low, space.high))
            return {"type": "Box", "low": low, "high": high, "shape": list(space.shape), "dtype": str(space.dtype)}
        case gym.spaces.Discrete():
            return {"type": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
        case gym.spaces.MultiDiscrete():
            return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist(), "dtype": str(space.dtype)}
        case gym.spaces.MultiBinary():
            return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else [int(size) for size in space.n]}
        case gym.spaces.Dict():
            return {"type": "Dict", "spaces": {key: table_of(part) for key, part in space.spaces.items()}}
        case gym.spaces.Tuple():
            return {"type": "Tuple", "spaces": [table_of(part) for part in space.spaces]}
    raise AssertionError(space)


@pytest.mark.long
@given(SPACES)
def test_any_space_comes_back_from_its_table(space: gym.Space[Any]) -> None:
    assert space_from_config(table_of(space), "observation") == space


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "observation.type: expected one of Box"),
        ({"type": "Text"}, "received 'Text'"),
        ("Box", "expected a table"),
        ({"type": "Box", "low": 0.0, "high": 1.0}, "missing: shape"),
        ({**BOX, "size": 3}, "observation.size: unknown key of a Box"),
        ({**BOX, "low": "x"}, "observation.low: expected a number, or lists of numbers, received 'x'"),
        ({**BOX, "low": float("nan")}, "observation.low: expected a number"),
        ({**BOX, "low": [[0.0], [0.0, 1.0]]}, "expected a valid Box"),
        ({**BOX, "low": [0.0, 0.0, 0.0]}, "expected a valid Box"),
        ({**BOX, "low": 2.0}, "expected a valid Box"),
        ({**BOX, "high": 1e39}, "observation.high: expected numbers that float32 can hold, received 1e+39"),
        ({**BOX, "low": -1, "dtype": "uint8"}, "observation.low: expected whole numbers from 0 to 255, which uint8 can hold, received -1"),
        ({**BOX, "high": 1.5, "dtype": "int32"}, "observation.high: expected whole numbers"),
        ({**BOX, "high": float("inf"), "low": 0, "dtype": "uint8"}, "observation.high: expected whole numbers"),
        ({**BOX, "dtype": "float31"}, "expected a valid Box"),
        ({**BOX, "dtype": "float16"}, "observation: dtype: expected one of float32"),
        ({**BOX, "shape": "10"}, "observation.shape: expected a list of whole numbers"),
        ({**BOX, "shape": 10}, "observation.shape: expected a list of whole numbers"),
        ({**BOX, "shape": [2.5]}, "observation.shape: expected a list of whole numbers"),
        ({**BOX, "shape": [-1]}, "observation.shape: expected a list of whole numbers"),
        ({"type": "Discrete", "n": 0}, "expected a valid Discrete"),
        ({"type": "Discrete", "n": 2.0}, "expected a valid Discrete"),
        ({"type": "Discrete", "n": 300, "dtype": "int8"}, "expected a valid Discrete"),
        ({"type": "Discrete", "n": 3, "dtype": "int16"}, "observation: dtype: expected one of"),
        ({"type": "MultiDiscrete", "nvec": [2.5, 3]}, "observation.nvec: expected whole numbers"),
        ({"type": "MultiDiscrete", "nvec": [2, 3], "start": [1]}, "expected a valid MultiDiscrete"),
        ({"type": "MultiDiscrete", "nvec": [2, 3], "start": 0.5}, "observation.start: expected whole numbers"),
        ({"type": "MultiDiscrete", "nvec": [2, 3], "dtype": "float32"}, "expected a valid MultiDiscrete"),
        ({"type": "MultiBinary", "n": [2, 0]}, "expected a valid MultiBinary"),
        ({"type": "MultiBinary", "n": 2.0}, "observation.n: expected a list of whole numbers"),
        ({"type": "Dict", "spaces": {"a": {"type": "Discrete"}}}, "observation.spaces.a: a Discrete needs n"),
        ({"type": "Dict", "spaces": []}, "observation.spaces: expected a table of tables"),
        ({"type": "Dict", "spaces": {}}, "observation.spaces: expected one space at least"),
        ({"type": "Tuple", "spaces": {"a": BOX}}, "observation.spaces: expected a list"),
        ({"type": "Tuple", "spaces": []}, "observation.spaces: expected one space at least"),
        ({"type": "Tuple", "spaces": [BOX, {**BOX, "low": 7.5, "dtype": "int8"}]}, "observation.spaces[1].low: expected whole numbers"),
    ],
)
def test_a_wrong_space_is_refused_by_its_place_in_the_file(table: Any, message: str) -> None:
    with pytest.raises(ValueError, match="observation") as refused:
        space_from_config(table, "observation")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "table",
    [
        {"type": "MultiBinary", "n": 2},
        {"type": "Dict", "spaces": {"a": {"type": "Discrete", "n": 2}}},
        {"type": "Tuple", "spaces": [{"type": "Discrete", "n": 2}]},
        {"type": "Box", "low": 0, "high": 3, "shape": [2], "dtype": "int32"},
        {"type": "MultiDiscrete", "nvec": [[2, 2], [2, 2]]},
    ],
    ids=lambda table: str(table["type"]),
)
def test_a_space_that_no_policy_acts_in_is_refused_before_anything_starts(table: Any) -> None:
    with pytest.raises(SettingsError, match=r"spaces\.action: .*expected a Box of floats, a Discrete or a flat MultiDiscrete"):
        load(ServerConfig, None, {"spaces.action": table})
