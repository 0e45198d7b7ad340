"""The server's configuration has its defaults, reads back as it was written, and refuses a wrong setting by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policyserver.common.settings import SettingsError, dump_toml, load
from policyserver.monitoring.page.listen import PageConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.serving_config import ListenConfig, ServingConfig

BOX = {"type": "Box", "low": -1.0, "high": 1.0, "shape": [2]}


def test_the_defaults_are_the_seeds_set_up() -> None:
    config = load(ServerConfig)
    assert config.listen.address == "127.0.0.1:9900"
    assert config.spaces.observation_space == gym.spaces.Box(-100, 100, (10,), np.float32)
    assert config.spaces.action_space == gym.spaces.Discrete(3)
    model = config.algorithm.methods["rl_module"]["model_config"]
    assert config.algorithm.name == "PPO"
    assert (model["use_lstm"], model["lstm_cell_size"], model["fcnet_hiddens"]) == (True, 64, [64, 64])


@pytest.mark.long
def test_a_configuration_written_out_reads_back_as_the_same(tmp_path: Path) -> None:
    config = load(ServerConfig, None, {"seed": 7, "hand_off.batches_ahead": 1.0, "algorithm.training.lr": 1e-3, "spaces.observation": BOX})
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
        ("episodes.episode_idle_timeout_s", 0.0, "more than 0"),
        ("hand_off.batches_ahead", -0.5, "at least 0"),
        ("hand_off.capacity_steps", 1, "at least 64"),
        ("learner.niceness", -1, "at least 0 and at most 19"),
        ("checkpoints.keep", 0, "at least 1"),
        ("algorithm.name", "A3C", "PPO"),
        ("algorithm.trainin", {}, "unknown key"),
        ("seed", -1, "at least 0"),
        ("recording.page", "9980", "HOST:PORT such as"),
        ("recording.page", "unix:/run/page.sock", "HOST:PORT such as"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(key: str, value: Any, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as refused:
        load(ServerConfig, None, {key: value})
    assert key in str(refused.value)


def test_the_page_is_served_where_it_is_told_to_and_by_default_nowhere() -> None:
    assert load(ServerConfig).page_listen is None
    files = {f"listen.{name}": name for name in ("tls_certificate_file", "tls_key_file", "token_file")}
    local = load(ServerConfig, None, {"recording.page": "127.0.0.1:9980", **files}).page_listen
    assert local == PageConfig("127.0.0.1:9980"), "on this machine it is open, whatever protects the policy service"
    public = load(ServerConfig, None, {"recording.page": "0.0.0.0:9980", **files}).page_listen
    assert public == PageConfig("0.0.0.0:9980", Path("tls_certificate_file"), Path("tls_key_file"), Path("token_file"))
    with pytest.raises(SettingsError, match=r"recording.page: expected recording.enabled"):
        load(ServerConfig, None, {"recording.page": "127.0.0.1:9980", "recording.enabled": False})


def test_a_key_of_the_file_replaces_one_default_of_the_algorithm_and_leaves_the_others() -> None:
    training = load(ServerConfig, None, {"algorithm.training.lr": 1e-3}).algorithm.methods["training"]
    assert training["lr"] == 1e-3
    assert training["train_batch_size_per_learner"] == 4000


def test_the_defaults_of_ppo_are_not_those_of_another_algorithm() -> None:
    methods = load(ServerConfig, None, {"algorithm.name": "SAC"}).algorithm.methods
    assert "rl_module" not in methods
    assert "entropy_coeff" not in methods["training"]


def test_a_serving_actor_gets_its_part_through_env_config() -> None:
    serving = ServingConfig(ListenConfig(address="127.0.0.1:1"), driver_link=Path("link"), opens_itself=False)
    assert ServingConfig.from_env_config({"other": 1, **serving.to_env_config()}) == serving
    assert ServingConfig.from_env_config({}) == ServingConfig()
    with pytest.raises(ValueError, match="expected a ServingConfig"):
        ServingConfig.from_env_config({"policy_server": {"listen": {}}})


def test_an_instance_id_is_made_once_where_none_is_set() -> None:
    made = ServerConfig().with_instance_id()
    assert made.instance_id
    assert made.with_instance_id() == made
    assert ServerConfig().with_instance_id() != made
    assert ServerConfig(instance_id="given").with_instance_id().instance_id == "given"
