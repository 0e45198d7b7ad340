"""Each shipped set-up of the demo is whole: it loads, its server gets the spaces of its rules, and its episodes are played and recorded."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.common.settings import SettingsError, load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.demo.setup import DEFAULT_MARKET, MARKETS, SERVER_FILE, DemoConfig, fresh_run
from policyserver.pipelines.demo.terminal import render
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.prices.config import make_slots
from policyserver.pipelines.run import source_of
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.pipelines.snapshot import SnapshotTaker
from policyserver.server.config.server_config import ServerConfig
from tests.commands import run_here
from tests.pipelines.pipeline_harness import play
from tests.pipelines.policy_double import PolicyDouble
from tests.pipelines.recorded_prices import fair_game, write_bars

ADDRESS = "127.0.0.1:9901"


def shortened(name: str, steps: int = 800) -> PipelineConfig:
    """A shipped set-up with short episodes."""
    config = load(PipelineConfig, MARKETS[name])
    episodes = dataclasses.replace(config.episodes, concurrent=8, steps=steps)
    return dataclasses.replace(config, episodes=episodes, prices=dataclasses.replace(config.prices, bars_per_episode=25))


def random_policy(config: PipelineConfig) -> PolicyDouble:
    space = Rules.of(config.rules).actions.space(make_slots(config.prices))
    space.seed(1)
    return PolicyDouble(lambda observations: np.array([space.sample() for _ in observations]))


def test_the_shipped_set_ups_are_those_that_the_guide_names() -> None:
    assert list(MARKETS) == ["gbm", "heston-mixture", "limit-orders", "ou", "portfolio"]
    guide = (Path(__file__).parents[3] / "docs" / "guides" / "trading.md").read_text(encoding="utf-8")
    assert [name for name in MARKETS if f"| `{name}` |" not in guide] == []


def test_what_is_played_by_default_are_the_defaults_with_costs_on_credit() -> None:
    rules = RulesConfig(account=AccountConfig(max_leverage=None))
    assert load(PipelineConfig, MARKETS[DEFAULT_MARKET]) == PipelineConfig(rules=rules)
    assert {load(PipelineConfig, file).rules.account for file in MARKETS.values()} == {rules.account}


@pytest.mark.long
@pytest.mark.parametrize("name", MARKETS)
def test_the_server_of_a_set_up_has_the_spaces_of_its_rules(name: str, tmp_path: Path) -> None:
    folder, config = fresh_run(DemoConfig(market=name, runs=tmp_path), ADDRESS)
    server = load(ServerConfig, folder / SERVER_FILE)
    rules, slots = Rules.of(config.rules), make_slots(config.prices)
    assert server.spaces.observation_space == rules.observation_space(slots)
    assert server.spaces.action_space == rules.actions.space(slots)
    assert load(PipelineConfig, folder / "pipeline.toml") == config


@pytest.mark.long
@pytest.mark.parametrize("name", MARKETS)
def test_a_set_up_is_played_recorded_and_shown(name: str) -> None:
    config = shortened(name)
    pipeline, service, book = play(config, random_policy(config))
    steps = book.rows["step"]
    assert 800 <= pipeline.run.steps == len(steps) < 800 + 8
    assert math.fsum(row["reward"] for row in steps) == pytest.approx(pipeline.reward_sum, abs=1e-9)
    assert service.open_episodes() == []
    assert set(pipeline.run.endings) <= {"truncated", "terminated"}
    assert all(np.isfinite(observation).all() for heard in service.episodes.values() for observation in heard.observations)
    assert len(book.rows["order"]) > 10
    assert sum(math.isfinite(value) for value in pipeline.run.episodes.last(1.0)["random"]) >= 24
    lines = render(SnapshotTaker(pipeline, ServerWatch(Silent(), pipeline._episode_node._recorder.sink, pipeline.tags)).take(), name, 200)
    assert len([line for line in lines if line.startswith("policy-")]) == 12


class Silent:
    """A server that has nothing to say."""

    def stats_by_endpoint(self) -> dict[str, Any]:
        return {}


@pytest.mark.long
def test_the_portfolio_trades_five_symbols_at_once_and_has_a_score_for_each_and_for_cash() -> None:
    config = shortened("portfolio", steps=400)
    _, service, _ = play(config, random_policy(config))
    assert {len(name.rpartition("-")[0].split("+")) for name in service.episodes} == {5}
    assert all(len(action) == 6 for heard in service.episodes.values() for action in heard.actions)


@pytest.mark.long
def test_the_mixture_has_episodes_of_each_of_its_processes() -> None:
    source = source_of(shortened("heston-mixture"))
    parts = Counter(episode.bars.parameters["part"] for episode in source.episodes(range(300)))
    assert parts[0.0] / 300 == pytest.approx(2 / 3, abs=4 * math.sqrt(2 / 9 / 300))
    assert set(parts) == {0.0, 1.0}


@pytest.mark.long
def test_ordering_all_the_time_costs_what_the_set_up_of_limit_orders_says() -> None:
    config = shortened("limit-orders", steps=400)
    calm = PolicyDouble(lambda observations: np.tile(np.array([0.0, 0.0, -1.0], np.float32), (len(observations), 1)))
    hectic = random_policy(config)
    (quiet, _, _), (busy, _, _) = play(config, calm), play(config, hectic)
    assert quiet.reward_sum == 0.0
    free = dataclasses.replace(config, rules=dataclasses.replace(config.rules, rewards=("log_equity",)))
    assert busy.reward_sum < play(free, random_policy(config))[0].reward_sum - 1.0


# A set-up of one's own, and files -----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_set_up_of_ones_own_keeps_its_seed_episodes_and_steps_unless_options_say_otherwise(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('seed = 5\n[episodes]\nconcurrent = 3\nsteps = 70\n[prices]\nprocess = "merton"\nsymbols = ["X"]\n', encoding="utf-8")
    _, config = fresh_run(DemoConfig(config=own, runs=tmp_path / "a"), ADDRESS)
    assert (config.seed, config.episodes.concurrent, config.episodes.steps) == (5, 3, 70)
    assert (config.prices.name, config.prices.symbols, config.worker_number) == ("merton", ("X",), 0)
    _, config = fresh_run(DemoConfig(config=own, seed=0, episodes=4, steps=9, runs=tmp_path / "b"), ADDRESS)
    assert (config.seed, config.episodes.concurrent, config.episodes.steps) == (0, 4, 9)


@pytest.mark.long
def test_files_are_read_as_the_set_up_of_ones_own_says(tmp_path: Path) -> None:
    file, own = write_bars(tmp_path / "AAA.csv", fair_game(500, seed=1)), tmp_path / "own.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")
    own.write_text('[prices.recorded.files.mapping]\ndelimiter = ";"\n', encoding="utf-8")
    _, config = fresh_run(DemoConfig(config=own, files=(file,), runs=tmp_path), ADDRESS)
    assert config.prices.recorded is not None
    assert (config.prices.recorded.paths, config.prices.recorded.files.mapping is None) == ((str(file),), False)


@pytest.mark.long
def test_a_file_that_no_dialect_fits_is_refused_with_what_to_set_and_where_and_is_then_played(tmp_path: Path) -> None:
    file, own = write_bars(tmp_path / "AAA.csv", fair_game(500, seed=1)), tmp_path / "own.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")
    ended = run_here("policy-pipeline", "demo", "--prices", str(file), "--runs", str(tmp_path / "runs"))
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith(f"policy-pipeline: prices.recorded.files: {file}, line 1: expected the columns open, high, low, close")
    assert ended.stderr.endswith('set mapping.delimiter = ";" (in a file of settings, for --config)\n')
    assert not (tmp_path / "runs").exists()
    own.write_text('prices.recorded.files.mapping.delimiter = ";"\n', encoding="utf-8")
    _, config = fresh_run(DemoConfig(config=own, files=(file,), runs=tmp_path / "runs"), ADDRESS)
    assert len(source_of(config).episodes([0])[0].bars.bars) == 400


@pytest.mark.long
def test_files_take_the_place_of_the_set_ups_prices_and_not_of_its_rules(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "AAA.csv", fair_game(500, seed=1))
    _, config = fresh_run(DemoConfig(market="limit-orders", files=(file,), runs=tmp_path), ADDRESS)
    assert (config.prices.name, config.rules.actions) == ("recorded", "limit_offsets")
    _, config = fresh_run(DemoConfig(market="heston-mixture", files=(file,), runs=tmp_path), ADDRESS)
    assert config.prices.name == "recorded"
    with pytest.raises(SettingsError, match=r"^prices\.symbols_per_episode: expected at most the 1 symbols of the files, received 5"):
        fresh_run(DemoConfig(market="portfolio", files=(file,), runs=tmp_path), ADDRESS)
