"""Settings of a program of one's own that nobody would read are refused where the env runner is made, or before."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from policyserver.common.settings import SettingsError, load
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.serving_config import HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.server.core_harness import ppo_config

SERVING = ServingConfig(ListenConfig("127.0.0.1:0"), hand_off=HandOffConfig(sample_wait_s=0.1)).to_env_config()


def in_place(**changes: Any) -> AlgorithmConfig:
    """A configuration as a program has it that serves in its own process."""
    config = ppo_config().copy(copy_frozen=False).environment(env_config=SERVING).env_runners(num_env_runners=0)
    for method, arguments in changes.items():
        getattr(config, method)(**arguments)
    return config


def made(config: AlgorithmConfig) -> str:
    """Make the env runner of this process; why it was refused, or where it serves."""
    try:
        runner = ExternalEnvRunner(config=config, worker_index=0, num_workers=config.num_env_runners)
    except ValueError as error:
        return str(error)
    addresses = runner.addresses()
    runner.stop()
    return f"serving on {addresses}"


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"environment": {"env_config": {"address": "127.0.0.1:9900"}}},
            r"env_config\['address'\]: .*127.0.0.1:9900.*ServingConfig\(",
        ),
        ({"environment": {"env_config": {"prot": 1}}}, r"env_config\['prot'\]: expected no such key, .* received 1; .*ServingConfig"),
        (
            {"offline_data": {"input_": lambda context: None}},
            r"offline_data\(input_=...\): expected none, .*PolicyServer.*ServingConfig",
        ),
        ({"offline_data": {"input_": "/data/old"}}, r"offline_data\(input_=...\): .* received '/data/old'"),
        ({"offline_data": {"output": "/data/new"}}, r"offline_data\(output=...\): .* received '/data/new'"),
    ],
)
def test_what_nobody_would_read_is_refused_by_name(changes: dict[str, Any], expected: str) -> None:
    for runners in (0, 1):  # with one of its own that serves, RLlib makes this one beside it, and says no other's error
        said = made(in_place(**changes, env_runners={"num_env_runners": runners}))
        assert re.match(expected, said), said
        assert "\n" not in said


@pytest.mark.long
def test_an_environments_own_configuration_is_its_own() -> None:
    assert made(in_place()).startswith("serving on ['127.0.0.1:")
    table = {"env": "python:examples.trading_server.TradingServing", "env_config": {"address": "10.0.0.1", "port": 1}}
    config = algorithm_config(load(ServerConfig, None, {"algorithm.environment": table}), ExternalEnvRunner)
    assert config.env_config["address"] == "10.0.0.1"


def test_the_server_refuses_it_before_ray_starts() -> None:
    with pytest.raises(SettingsError, match=r"env_config\['address'\]: expected no such key"):
        algorithm_config(load(ServerConfig, None, {"algorithm.environment": {"env_config": {"address": "127.0.0.1:1"}}}), ExternalEnvRunner)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("lowered", [0, 15])
def test_a_serving_process_that_ray_put_behind_the_others_says_what_to_do(lowered: int) -> None:
    script = f"""
import logging, os, sys
from policyserver.server.runner.env_runner import ExternalEnvRunner
logging.basicConfig(format="%(levelname)s %(message)s", level="INFO", stream=sys.stdout)
os.nice({lowered})  # as Ray's core does in each of its workers
ExternalEnvRunner._prepare_process()
"""
    said = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], check=True, capture_output=True, text=True).stdout
    warned = re.search(r"WARNING serving at niceness \d+, .* RAY_worker_niceness=0 .* ray.init\(\)", said)
    assert bool(warned) == bool(lowered), said
