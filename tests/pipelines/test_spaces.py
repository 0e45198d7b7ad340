"""`policy-pipeline spaces`: what it prints, appended to a server's settings, gives the server the spaces of a pipeline's rules."""

from __future__ import annotations

import tomllib
from pathlib import Path

import gymnasium as gym
import pytest

from policyserver.common.settings import load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.prices.config import make_slots
from policyserver.server.config.rllib_config import SpacesConfig
from policyserver.server.config.server_config import ServerConfig
from tests.commands import run_here

PIPELINE = """
[prices]
symbols_per_episode = {symbols}
[rules]
actions = "{actions}"
observers = ["returns", {{ name = "window", bars = 3 }}, "position"]
"""


@pytest.mark.parametrize("actions", ["hold_buy_sell_close", "simplex_weights", "target_weight", "target_position", "limit_offsets"])
@pytest.mark.parametrize("server", ["", "# a server\n[algorithm]\nname = 'PPO'", "[listen]\nmax_rows_per_message = 100\n"])
def test_the_tables_complete_a_servers_file(tmp_path: Path, actions: str, server: str) -> None:
    pipeline, file = tmp_path / "pipeline.toml", tmp_path / "server.toml"
    pipeline.write_text(PIPELINE.format(actions=actions, symbols=1 if actions in ("target_position", "limit_offsets") else 2))
    ended = run_here("policy-pipeline", "spaces", "--config", str(pipeline))
    assert (ended.returncode, ended.stderr) == (0, "")
    file.write_text(server + ended.stdout)
    spaces = load(ServerConfig, file).spaces
    config = load(PipelineConfig, pipeline)
    rules, slots = Rules.of(config.rules), make_slots(config.prices)
    assert spaces.observation_space == rules.observation_space(slots)
    assert spaces.action_space == rules.actions.space(slots)


@pytest.mark.long
def test_options_count_as_those_of_run_do_and_the_defaults_are_the_servers() -> None:
    usual, printed = SpacesConfig(), run_here("policy-pipeline", "spaces").stdout
    assert tomllib.loads(printed) == {"spaces": {"observation": usual.observation, "action": usual.action}}
    two = ("--rules.actions", "hold_buy_sell_close", "--prices.symbols_per_episode", "2")
    assert "nvec = [4, 4]" in run_here("policy-pipeline", "spaces", *two).stdout


def test_actions_without_a_table_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text_actions.py").write_text(
        "import gymnasium as gym\n"
        "from dataclasses import dataclass\n"
        "from policyserver.pipelines.market.schemes.actions.hold_buy_sell_close import HoldBuySellClose\n"
        "@dataclass(frozen=True, slots=True)\n"
        "class Words(HoldBuySellClose):\n"
        "    def space(self, symbols):\n"
        "        return gym.spaces.Text(4)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    ended = run_here("policy-pipeline", "spaces", "--rules.actions", "python:text_actions.Words")
    assert ended.returncode == 2
    assert "rules.actions" in ended.stderr
    assert f"expected a Box, Discrete or MultiDiscrete, received {gym.spaces.Text(4)}" in ended.stderr
