from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policyserver.settings import SettingsError, dump_toml, load
from server.config import ListenConfig, ServerConfig, ServingConfig, space_from_config

BOX = {"type": "Box", "low": -1.0, "high": 1.0, "shape": [2]}


def test_the_defaults_are_the_seeds_set_up() -> None:
    config = load(ServerConfig)
    assert config.listen.address == "127.0.0.1:9900"
    assert config.spaces.observation_space == gym.spaces.Box(-100, 100, (10,), np.float32)
    assert config.spaces.action_space == gym.spaces.Discrete(3)
    model = config.algorithm.methods["rl_module"]["model_config"]
    assert config.algorithm.name == "PPO"
    assert (model["use_lstm"], model["lstm_cell_size"], model["fcnet_hiddens"]) == (True, 64, [64, 64])


def test_a_configuration_written_out_reads_back_as_the_same(tmp_path: Path) -> None:
    config = load(ServerConfig, None, {"seed": 7, "hand_off.overflow": "block", "algorithm.training.lr": 1e-3, "spaces.observation": BOX})
    file = tmp_path / "server.toml"
    file.write_text(dump_toml(config, comments=True))
    assert load(ServerConfig, file) == config


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("listen.adress", "x", "unknown key"),
        ("listen.address", "localhost", "host:port"),
        ("listen.tls_key_file", "key.pem", "together with tls_certificate_file"),
        ("listen.max_message_bytes", 10, "at least 1024"),
        ("episodes.episode_idle_timeout_s", 0.0, "above 0"),
        ("hand_off.overflow", "drop", "drop_oldest"),
        ("hand_off.capacity_steps", 1, "at least 64"),
        ("learner.niceness", -1, "0 to 19"),
        ("checkpoints.keep", 0, "at least 1"),
        ("algorithm.name", "A3C", "PPO"),
        ("algorithm.trainin", {}, "unknown key"),
        ("seed", -1, "at least 0"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(key: str, value: Any, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as refused:
        load(ServerConfig, None, {key: value})
    assert key in str(refused.value)


def test_a_key_of_the_file_replaces_one_default_of_the_algorithm_and_leaves_the_others() -> None:
    training = load(ServerConfig, None, {"algorithm.training.lr": 1e-3}).algorithm.methods["training"]
    assert training["lr"] == 1e-3
    assert training["train_batch_size_per_learner"] == 4000


def test_the_defaults_of_ppo_are_not_those_of_another_algorithm() -> None:
    assert load(ServerConfig, None, {"algorithm.name": "SAC"}).algorithm.methods == {}


def test_nested_spaces_are_built_from_tables() -> None:
    table = {
        "type": "Dict",
        "spaces": {
            "price": {"type": "Box", "low": [0.0, -1.0], "high": [1.0, float("inf")], "shape": [2], "dtype": "float64"},
            "flags": {"type": "Tuple", "spaces": [{"type": "MultiBinary", "n": 3}, {"type": "MultiDiscrete", "nvec": [2, 4]}]},
            "day": {"type": "Discrete", "n": 7, "start": 1},
        },
    }
    expected = gym.spaces.Dict(
        {
            "price": gym.spaces.Box(np.array([0.0, -1.0]), np.array([1.0, np.inf]), dtype=np.float64),
            "flags": gym.spaces.Tuple([gym.spaces.MultiBinary(3), gym.spaces.MultiDiscrete([2, 4])]),
            "day": gym.spaces.Discrete(7, start=1),
        }
    )
    assert space_from_config(table, "observation") == expected


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "observation.type: expected one of Box"),
        ({"type": "Text"}, "got 'Text'"),
        ({"type": "Box", "low": 0.0, "high": 1.0}, "missing: shape"),
        ({**BOX, "size": 3}, "observation.size: unknown key of a Box"),
        ({**BOX, "low": "x"}, "expected a valid Box"),
        ({**BOX, "dtype": "float31"}, "expected a valid Box"),
        ({"type": "Discrete", "n": 0}, "expected a valid Discrete"),
        ({"type": "Dict", "spaces": {"a": {"type": "Discrete"}}}, "observation.spaces.a: a Discrete needs n"),
        ({"type": "Tuple", "spaces": {"a": BOX}}, "observation.spaces: expected a list"),
        ("Box", "expected a table"),
    ],
)
def test_a_wrong_space_is_refused_by_its_place_in_the_file(table: Any, message: str) -> None:
    with pytest.raises(ValueError, match="observation") as refused:
        space_from_config(table, "observation")
    assert message in str(refused.value)


def test_a_serving_actor_gets_its_part_through_env_config() -> None:
    serving = ServingConfig(ListenConfig(address="127.0.0.1:1"), driver_link=Path("link"), opens_itself=False)
    assert ServingConfig.from_env_config({"other": 1, **serving.to_env_config()}) == serving
    assert ServingConfig.from_env_config({}) == ServingConfig()
    with pytest.raises(ValueError, match="expected a ServingConfig"):
        ServingConfig.from_env_config({"policy_server": {"listen": {}}})
