"""A policy with connectors gives what array code gives, records what they write, and shows them episodes as RLlib would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter, PrevActionsPrevRewards
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from tests.server.connector_harness import assert_inputs, assert_same, log_probs_of, player_of, random_moves, stock_policy
from tests.server.core_harness import (
    ACTIONS,
    MODELS,
    OBSERVATION,
    CoreHarness,
    module_of,
    observation,
    policy_of,
    spaces_of,
)
from tests.server.episode_player import by_episode, play
from tests.server.policy_player import Move
from tests.server.user_connectors import (
    CenterOnEverythingSeen,
    CuriousReward,
    DifferenceInTheBatch,
    HalfTheObservation,
    NextActionOnOddSteps,
    ScaleObservations,
    ShiftInTheBatch,
)

# The same as array code ----------------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_rllibs_default_connectors_give_what_array_code_gives(model: str) -> None:
    module = module_of(model)
    stock, array = stock_policy(module, explore=False, chunk_steps=3), policy_of(module, explore=False)
    assert stock.layout.outputs == array.layout.outputs
    assert stock.layout.observation_space == array.layout.observation_space
    players = player_of(stock), player_of(array)
    for moves in random_moves(1, 40):
        first, second = (player.send(*moves) for player in players)
        assert_same(first, second, actions=True)


@pytest.mark.long
@pytest.mark.parametrize("action", ACTIONS)
def test_given_actions_are_recorded_and_rated_as_array_code_does_it(action: str) -> None:
    module = module_of(action=action)
    players = player_of(stock_policy(module, action=action), action), player_of(policy_of(module, action=action), action)
    ACTIONS[action].seed(0)
    for moves in random_moves(2, 20):
        for move in moves:
            if not move.end:
                move.given = ACTIONS[action].sample()
        first, second = (player.send(*moves) for player in players)
        assert_same(first, second, actions=True)
        np.testing.assert_allclose(log_probs_of(first), log_probs_of(second), rtol=1e-6, atol=1e-5)
        given = [move.given for move in moves if not move.end]
        np.testing.assert_array_equal(first.executed, np.reshape(given, first.executed.shape))


@pytest.mark.long
@pytest.mark.parametrize("action", ACTIONS)
def test_drawn_actions_fit_the_space_and_their_log_probabilities_the_distribution(action: str) -> None:
    policy = stock_policy(action=action)
    player = player_of(policy, action)
    decided = player.send(*(Move(slot, np.full(10, slot, np.float32), new=True) for slot in range(200)))
    assert len({tuple(np.ravel(row).tolist()) for row in decided.executed}) > 1
    assert all(ACTIONS[action].contains(row if row.shape else row[()]) for row in decided.executed)
    distribution = module_of(action=action).get_exploration_action_dist_cls()
    inputs = torch.from_numpy(decided.decisions.outputs[Columns.ACTION_DIST_INPUTS])
    expected = distribution.from_logits(inputs).logp(torch.from_numpy(decided.decisions.actions))
    np.testing.assert_allclose(log_probs_of(decided), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("model", ["mlp", "lstm_shared"])
def test_a_module_that_gives_its_actions_itself_does_so_for_each_row(model: str) -> None:
    config: Any = DQNConfig().training(epsilon=0.0).rl_module(model_config=DefaultModelConfig(**cast(Any, MODELS[model])))
    module = config.get_rl_module_spec(spaces=spaces_of(OBSERVATION, ACTIONS["discrete"]), inference_only=True).build()
    together, alone = player_of(stock_policy(module)), player_of(stock_policy(module))
    assert together.policy.layout.outputs == {}
    for step, moves in enumerate(random_moves(8, 12)):
        for move in moves:
            move.given = step % 3 if not move.end and move.slot == 1 else None
        decided = together.send(*moves)
        assert decided.decisions.log_probs is None
        each = [alone.send(move) for move in moves]
        np.testing.assert_array_equal(decided.executed, np.concatenate([one.executed for one in each]))
        for ours, *theirs in zip(decided.state, *(one.state for one in each), strict=True):
            np.testing.assert_allclose(ours, np.concatenate(theirs), atol=1e-6)


# What connectors write -----------------------------------------------------------------------------------------------------------------


def test_what_connectors_write_is_recorded() -> None:
    player = player_of(stock_policy(None, ScaleObservations(), CuriousReward()))
    player.send(Move(0, observation(50), new=True))
    decided = player.send(Move(0, observation(100), reward=1.0, info={"bar": 7}))
    np.testing.assert_allclose(decided.observations[0][0], observation(2))
    assert decided.rewards.tolist() == [pytest.approx(1.2)]
    assert decided.infos == {0: {"bar": 7, "bonus": pytest.approx(0.2)}}


def test_a_connector_that_only_changes_the_batch_leaves_the_recorded_observations_alone() -> None:
    module = module_of()
    stock, plain = player_of(stock_policy(module, ShiftInTheBatch())), player_of(policy_of(module))
    shifted = stock.send(Move(0, observation(1, 2), new=True))
    np.testing.assert_array_equal(shifted.observations[0][0], observation(1, 2))
    assert_inputs(shifted, plain.send(Move(0, observation(1, 2) + np.float32(0.25), new=True)))


def test_observations_of_another_shape_are_recorded_in_their_own_space() -> None:
    policy = stock_policy(None, HalfTheObservation())
    assert policy.layout.observation_space == gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)
    decided = player_of(policy).send(Move(0, observation(1, 2, 3), new=True))
    assert decided.observations[0].tolist() == [[1, 2, 3, 0, 0]]


class AsDoubles(ScaleObservations):
    """Writes whole numbers, of which its space says nothing."""

    def preprocess(self, observation: Any, episode: Any) -> Any:
        return {"double": observation.astype(np.float64), "sign": np.sign(observation).astype(np.int8)}


def test_a_space_is_made_for_observations_that_no_connector_describes() -> None:
    class ToBatch(ShiftInTheBatch):
        def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
            for episode in episodes:
                self.add_batch_item(batch, Columns.OBS, episode.get_observations(-1)["double"], episode)
            return batch

    policy = stock_policy(module_of(), AsDoubles(), ToBatch())
    space = policy.layout.observation_space
    assert isinstance(space, gym.spaces.Dict)
    assert [(name, part.shape, str(part.dtype)) for name, part in space.spaces.items()] == [
        ("double", (10,), "float64"),
        ("sign", (10,), "int8"),
    ]
    decided = player_of(policy).send(Move(0, observation(-2, 3), new=True))
    assert [leaf[0].tolist()[:2] for leaf in decided.observations] == [[-2, 3], [-1, 1]]


@pytest.mark.long
def test_rllibs_previous_actions_and_rewards_see_what_was_really_executed() -> None:
    class Flat(ShiftInTheBatch):
        def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
            for episode in episodes:
                self.add_batch_item(batch, Columns.OBS, episode.get_observations(-1)[PrevActionsPrevRewards.ORIG_OBS_KEY], episode)
            return batch

    player = player_of(stock_policy(module_of(), PrevActionsPrevRewards(), Flat()))
    player.send(Move(0, observation(1), new=True, given=2))
    decided = player.send(Move(0, observation(2), reward=0.5, given=0))
    original, actions, rewards = decided.observations  # sorted by name
    assert (original[0, 0], actions[0].ravel().tolist(), rewards[0].tolist()) == (2, [0, 0, 1], [0.5])
    own, log_prob = player.policy.override(0, {}, np.array([1]))
    assert own.tolist() == [1]
    assert log_prob is not None
    assert log_prob != log_probs_of(decided)[0]
    decided = player.send(Move(0, observation(3), reward=0.25))
    assert (decided.observations[1].ravel().tolist(), decided.observations[2][0].tolist()) == ([0, 1, 0], [0.25])


def test_nested_observations_reach_connectors_as_the_environment_would_give_them() -> None:
    space = gym.spaces.Dict({"b": gym.spaces.Tuple([gym.spaces.Discrete(4, start=1), OBSERVATION]), "a": gym.spaces.MultiBinary(3)})
    seen = []

    class Look(ShiftInTheBatch):
        def __call__(self, *, batch: Any, episodes: Any, **kwargs: Any) -> Any:
            for episode in episodes:
                seen.append(episode.get_observations(-1))
                self.add_batch_item(batch, Columns.OBS, seen[-1]["b"][1], episode)
            return batch

    player = player_of(stock_policy(module_of(), Look(), space=space), space=space)
    assert player.policy.layout.observation_space == space
    value = {"b": (3, observation(4)), "a": np.array([1, 0, 1], np.int8)}
    decided = player.send(Move(0, value, new=True))
    assert all(space.contains(each) for each in seen), seen
    assert [leaf[0].tolist() for leaf in decided.observations] == [[1, 0, 1], 3, observation(4).tolist()]


def test_rows_that_end_pass_the_connectors_in_the_order_of_the_rows_and_get_no_action() -> None:
    player = player_of(stock_policy(None, CenterOnEverythingSeen()))
    player.send(Move(0, observation(10), new=True), Move(1, observation(20), new=True))
    decided = player.send(Move(0, observation(30), end="terminated"), Move(1, observation(40)))
    assert decided.observations[0][:, 0].tolist() == [30 - (10 + 20 + 30) / 3, 40 - (10 + 20 + 30 + 40) / 4]
    assert len(decided.decisions.actions) == len(decided.executed) == 1
    nobody = player.send(Move(1, observation(0), end="truncated"))
    assert (len(nobody.decisions.actions), nobody.decisions.actions.dtype) == (0, decided.decisions.actions.dtype)
    assert nobody.decisions.outputs[Columns.ACTION_DIST_INPUTS].shape == (0, 3)
    assert nobody.observations[0][0, 0] == pytest.approx(-20)


@pytest.mark.long
def test_connectors_look_back_over_the_place_where_an_episode_was_cut() -> None:
    module = module_of()
    values = np.random.default_rng(0).normal(size=(40, 10)).astype(np.float32) * 30
    cut, whole = (
        player_of(stock_policy(module, DifferenceInTheBatch(steps=3), explore=False, lookback=3, chunk_steps=steps)) for steps in (4, 1000)
    )
    for step, value in enumerate(values):
        assert_same(*(player.send(Move(0, value, new=step == 0)) for player in (cut, whole)))
    episode = cut.policy._live[0].episode  # type: ignore[attr-defined]
    assert len(episode.observations.data) <= 4 + 3 + 1
    assert episode.t == 39


@pytest.mark.long
def test_a_connector_of_the_way_out_sees_episodes_and_changes_actions() -> None:
    module = module_of()
    odd, plain = (
        player_of(stock_policy(module, outward=[NextActionOnOddSteps()], explore=False)),
        player_of(policy_of(module, explore=False)),
    )
    for step in range(6):
        moves = [Move(slot, observation(slot, step), new=step == 0, end="terminated" if step == 5 else "") for slot in range(3)]
        first, second = odd.send(*moves), plain.send(*moves)
        shift = step % 2
        np.testing.assert_array_equal(first.executed, (second.executed + shift) % 3)
        np.testing.assert_array_equal(first.decisions.actions, (second.decisions.actions + shift) % 3)


# Episodes that are not trained on --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_filters_transform_untrained_episodes_without_learning_from_them() -> None:
    filter_, reference = MeanStdFilter(), MeanStdFilter()
    mixed, trained_only = player_of(stock_policy(None, filter_)), player_of(stock_policy(None, reference))
    random = np.random.default_rng(0)
    for step in range(10):
        moves = [Move(slot, random.normal(size=10).astype(np.float32), step == 0, training=slot % 2 == 0) for slot in range(6)]
        decided = mixed.send(*moves)
        expected = trained_only.send(*(move for move in moves if move.training))
        np.testing.assert_array_equal(decided.observations[0][::2], expected.observations[0])
        (statistics,) = filter_.get_state()[None]["running_stats"]
        assert statistics == reference.get_state()[None]["running_stats"][0]
        for move, written in zip(moves[1::2], decided.observations[0][1::2], strict=True):
            assert not np.array_equal(written, move.observation)
    assert filter_._update_stats


# Episodes come and go --------------------------------------------------------------------------------------------------------------------


def test_ended_and_reaped_episodes_are_dropped() -> None:
    policy = stock_policy()
    player = player_of(policy)
    player.send(*(Move(slot, observation(slot), new=True) for slot in range(4)))
    player.send(Move(1, observation(9), end="terminated"))
    policy.forget([2, 77])
    assert sorted(policy._live) == [0, 3]
    with pytest.raises(KeyError):
        player.send(Move(1, observation(9)))
    player.send(Move(5, observation(1), new=True), Move(6, observation(1), new=True), Move(7, observation(1), new=True))
    assert sorted(live.index for live in policy._live.values()) == [0, 1, 2, 3, 4]
    player.send(Move(8, observation(1), new=True, end="truncated"))
    assert sorted(policy._live) == [0, 3, 5, 6, 7]


@pytest.mark.long
def test_an_idle_episode_keeps_no_other_row_of_its_message_alive() -> None:
    policy = stock_policy(module_of("lstm_apart"))
    player = player_of(policy)
    player.send(*(Move(slot, observation(slot), new=True) for slot in range(64)))
    player.send(*(Move(slot, observation(slot)) for slot in range(64)))
    live = policy._live[7]
    assert live.pending is not None
    arrays = [*live.episode.observations.data, live.pending.action, *live.pending.outputs.values()]
    arrays += [leaf for parts in (live.pending.outputs[Columns.STATE_OUT],) for part in parts.values() for leaf in part.values()]
    assert all(array.base is None for array in arrays if isinstance(array, np.ndarray))


# In the core -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_the_learner_gets_what_connectors_wrote(make_harness: Callable[..., CoreHarness], model: str) -> None:
    harness = make_harness(stock_policy(module_of(model), ScaleObservations(), chunk_steps=5))
    played, segments = play(harness, np.random.default_rng(5), episodes=8, longest=90, given_share=0.2)
    scaled = by_episode([rescaled(segment) for segment in segments])
    for episode in played:
        chunks = scaled[episode.number]
        assert sum(len(chunk) for chunk in chunks) == episode.length
        np.testing.assert_allclose(np.concatenate([chunk.get_rewards() for chunk in chunks]), episode.rewards)
        assert np.concatenate([chunk.get_actions() for chunk in chunks]).tolist() == episode.actions
        logged = np.concatenate([chunk.get_extra_model_outputs(Columns.ACTION_LOGP) for chunk in chunks])
        np.testing.assert_allclose(logged, episode.log_probs, atol=1e-6)
        for chunk in chunks:
            values = np.stack(episode.observations[chunk.t_started : chunk.t + 1])
            np.testing.assert_allclose(chunk.get_observations(), values, atol=1e-5)


def rescaled(segment: Any) -> Any:
    """The segment with the observations that the client sent."""
    segment.observations.data = np.round(segment.observations.data * 50.0, 5)
    return segment
