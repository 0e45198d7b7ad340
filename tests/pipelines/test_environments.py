"""A pipeline's settings as Gymnasium environments: what they play is what the pipeline plays, and they keep Gymnasium's contract."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.utils.env_checker import check_env

from policyserver.common.settings import SettingsError
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.environments import TradingEnv, make_named_vector_env, make_vector_env
from policyserver.pipelines.market.rules import RulesConfig
from policyserver.pipelines.market.split import SplitConfig
from policyserver.pipelines.market.windows import WindowsConfig
from policyserver.pipelines.prices import PricesConfig
from tests.pipelines.pipeline_harness import play
from tests.pipelines.policy_double import PolicyDouble
from tests.pipelines.recorded_market import minutes, pipeline, recorded, write_symbol

NAME = "policyserver.pipelines.environments:policyserver/Trading-v0"
PRICES = PricesConfig(bars_per_episode=40, warmup_bars=40)
SIMULATED = PipelineConfig(prices=PRICES, rules=RulesConfig(observers=("returns", "forecast", "position")))


def by_forecast(observations: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Be long where the forecast is above 0, else short."""
    return np.where(observations[:, 2] > 0, 2, 0)


def returns_of_the_pipeline(config: PipelineConfig, count: int) -> list[float]:
    """Return what the first episodes of a pipeline earned."""
    _, _, book = play(config, PolicyDouble(by_forecast))
    by_number = {int(row["episode"].rpartition("-")[2]): row["return"] for row in book.rows["episode"]}
    return [by_number[number] for number in range(count)]


def returns_of_the_environments(config: PipelineConfig, count: int) -> list[float]:
    envs = make_vector_env(config, count)
    observations, _ = envs.reset(seed=0)
    returns, going, forecasts = np.zeros(count), np.ones(count, dtype=np.bool_), 0
    while going.any():
        forecasts += int(np.count_nonzero(observations[:, 2]))
        observations, rewards, terminated, truncated, _ = envs.step(by_forecast(observations))
        returns += np.where(going, rewards, 0.0)
        going &= ~(terminated | truncated)
    assert forecasts
    return returns.tolist()


@pytest.mark.long
@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_vector_environment_plays_what_the_pipeline_plays_forecasts_among_it(is_recorded: bool, tmp_path: Path) -> None:
    count, prices = 6, PRICES
    if is_recorded:
        write_symbol(tmp_path / "AAA.csv", minutes(4))
        prices = replace(PRICES, recorded=recorded(tmp_path))
    config = pipeline(prices, SIMULATED.rules, concurrent=count, steps=count * 40)
    assert returns_of_the_environments(config, count) == pytest.approx(returns_of_the_pipeline(config, count), abs=1e-9)


NAMED = PipelineConfig(
    prices=replace(PRICES, symbols=("AAA", "BBB"), symbols_per_episode=2),
    rules=RulesConfig(
        actions="target_weight",
        observers=("returns", {"name": "window", "bars": 3}, "position", {"name": "window", "bars": 2, "fields": ("close",)}),
    ),
)


def test_observations_by_name_are_the_same_numbers_in_their_observers_shapes() -> None:
    whole: Any = make_vector_env(NAMED, 4)
    named: Any = make_named_vector_env(NAMED, 4)
    shapes = {name: space.shape for name, space in named.single_observation_space.spaces.items()}
    assert shapes == {"Returns": (4,), "Window_1": (3, 2, 5), "PositionShare": (2,), "Window_2": (2, 2, 1)}
    order = ("Returns", "Window_1", "PositionShare", "Window_2")
    plain, _ = whole.reset(seed=0)
    parts, _ = named.reset(seed=0)
    assert named.observation_space.contains(parts)
    for _ in range(3):
        np.testing.assert_array_equal(np.concatenate([parts[name].reshape(4, -1) for name in order], axis=1), plain)
        actions = np.full(whole.action_space.shape, 0.25, dtype=np.float32)
        plain, parts = whole.step(actions)[0], named.step(actions)[0]


def test_one_episode_by_name_is_made_by_gymnasium() -> None:
    env = gym.make("policyserver.pipelines.environments:policyserver/NamedTrading-v0", config=NAMED)
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert set(observation) == {"Returns", "Window_1", "PositionShare", "Window_2"}


def test_a_seed_begins_its_own_sequence_of_episodes_and_without_one_it_goes_on() -> None:
    envs = make_vector_env(SIMULATED, 3)

    def played(seed: int | None) -> Any:
        first, _ = envs.reset(seed=seed)
        later = [envs.step(by_forecast(first))[0] for _ in range(3)]
        return np.stack([first, *later])

    zero, one, after_one = played(0), played(1), played(None)
    assert not np.array_equal(zero, one)
    assert not np.array_equal(one, after_one)
    np.testing.assert_array_equal(played(1), one)
    np.testing.assert_array_equal(played(0), zero)


def test_environments_without_a_seed_play_different_episodes_and_say_which() -> None:
    single, vector = [gym.make(NAME, config=SIMULATED) for _ in range(3)], make_vector_env(SIMULATED, 2)
    firsts = [env.reset()[0] for env in single] + list(vector.reset()[0])
    assert len({first.tobytes() for first in firsts}) == 5
    for env, first in zip(single, firsts, strict=False):
        seed = env.unwrapped.np_random_seed
        after, _ = env.reset()
        assert not np.array_equal(after, first)
        np.testing.assert_array_equal(env.reset(seed=seed)[0], first)
        np.testing.assert_array_equal(env.reset()[0], after)
    several = gym.make_vec(NAME, num_envs=3, vectorization_mode="sync", config=SIMULATED)
    assert len(np.unique(several.reset()[0], axis=0)) == 3


def test_folds_one_after_another_are_refused_with_what_to_set(tmp_path: Path) -> None:
    write_symbol(tmp_path / "AAA.csv", minutes(4))
    windows, split = WindowsConfig(order="walk_forward"), SplitConfig(folds=2)
    walks = pipeline(replace(PRICES, recorded=recorded(tmp_path), windows=windows, split=split))
    with pytest.raises(SettingsError) as refused:
        make_vector_env(walks)
    problem = "expected random or sequential, and prices.split.fold = 0 to 1, for the environments of each fold, received 'walk_forward'"
    assert str(refused.value) == f"prices.windows.order: {problem}, which policy-pipeline plays"


@pytest.mark.long
def test_the_single_environment_keeps_the_contract_of_gymnasium() -> None:
    env = gym.make(NAME, config=SIMULATED)
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=3)
    over, rewards = False, 0
    while not over:
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert info["terms"].sum() == pytest.approx(reward)
        over, rewards = terminated or truncated, rewards + 1
    assert (rewards, info["ends"]) == (40, -1)
    trading = env.unwrapped
    assert isinstance(trading, TradingEnv)
    assert trading.envs.block.view.clock[0] == 40, "what the episode came to can still be read"


def test_gymnasium_makes_the_vector_environment_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text('[episodes]\nconcurrent = 7\n[rules]\nactions = "target_weight"\n', encoding="utf-8")
    assert make_vector_env(str(file)).num_envs == 7
    envs = gym.make_vec(NAME, num_envs=4, config=file)
    observations, _ = envs.reset(seed=0)
    assert observations in envs.observation_space
    assert envs.action_space.shape == (4, 1)


def test_a_wrong_setting_is_refused_with_its_key(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text('[rules]\nactions = "gamble"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"rules\.actions"):
        make_vector_env(file)
