"""What clients do, judged at the learner: by the train batch of a PPO learner's own pipeline, and by the episodes it is made of."""

from __future__ import annotations

import copy
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer
from ray.rllib.utils.spaces.space_utils import normalize_action, unsquash_action

from policyserver.client import EpisodeDuplicateError, EpisodeFinishedError, InvalidInputError, PolicyClient
from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.grpc_front import messages as wire
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.server.core_harness import (
    ACTIONS,
    OBSERVATION,
    CoreHarness,
    Row,
    learner_batch,
    module_of,
    observation,
    policy_of,
    ppo_config,
    spaces_of,
    start,
)
from tests.server.serving_loop_harness import CLIENT, ServingLoopHarness, running_serving_loop

Array = npt.NDArray[Any]


@functools.cache
def learner_of(action: str) -> Any:
    return ppo_config(action=action).build_learner(spaces=spaces_of(OBSERVATION, ACTIONS[action]))


def learned_module(action: str) -> Any:
    """The module that clients are served with: its weights are the learner's."""
    module = module_of(action=action)
    state = learner_of(action).get_state(components=COMPONENT_RL_MODULE, inference_only=True)
    module.set_state(state[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID])
    return module


def learned_policy(action: str) -> VectorizedPolicy:
    return policy_of(learned_module(action), action=action)


def train_batch(action: str, segments: list[SingleAgentEpisode]) -> dict[str, Any]:
    """Run the learner's pipeline; return its tensors without the rows that it adds and masks."""
    batch = learner_batch(learner_of(action), copy.deepcopy(segments))
    real = batch[Columns.LOSS_MASK]
    return {name: column[real] for name, column in batch.items() if isinstance(column, torch.Tensor)}


def train(action: str, segments: list[SingleAgentEpisode]) -> None:
    """Let the learner learn from segments; its weights are put back afterwards."""
    learner = learner_of(action)
    before = learner.get_state()
    results = learner.update(episodes=copy.deepcopy(segments), num_epochs=1, minibatch_size=4)
    assert np.isfinite(results[DEFAULT_MODULE_ID]["total_loss"].peek())
    learner.set_state(before)


def collected(serve: ServingLoopHarness, steps: int) -> list[SingleAgentEpisode]:
    """Wait for so many steps to arrive at the learner's end."""
    segments: list[SingleAgentEpisode] = []
    deadline = time.monotonic() + 60.0
    while sum(len(segment) for segment in segments) < steps:
        assert time.monotonic() < deadline, f"expected {steps} steps, received {segments}"
        segments += serve.segments(want_steps=1, wait_s=1.0, joined=False)
    for segment in segments:
        segment.validate()
    return segments


# Off-policy data -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_logged_box_action_is_trained_on_in_the_nets_form_with_its_log_prob_at_that_moment() -> None:
    space, before, after = ACTIONS["box"], learned_module("box"), learned_module("box")
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.mul_(1.5).add_(0.05)
    given = {0: [-2.0, 0.0], 2: [0.5, 2.5], 3: [2.0, 10.0], 5: [-1.0, 9.0]}
    policy, taken = policy_of(before, action="box"), []
    with running_serving_loop(policy, action_space=space) as serve, serve.client() as client:
        episode = client.start_episode()
        for step in range(6):
            if step == 3:
                policy.load_spare(after.state_dict())
                serve.serving_loop.serve_weights(1)
            if step in given:
                client.log_action(episode, observation(step), given[step])
                taken.append(np.array(given[step], np.float32))
            else:
                taken.append(client.get_action(episode, observation(step)))
            client.log_returns(episode, float(step))
        client.end_episode(episode, observation(6))
        (segment,) = collected(serve, 6)
    batch = train_batch("box", [segment])
    own = [*given]
    np.testing.assert_allclose(batch[Columns.ACTIONS][own], normalize_action(np.stack(taken), space)[own], atol=1e-6)
    np.testing.assert_allclose(unsquash_action(batch[Columns.ACTIONS].numpy(), space), taken, atol=1e-5)
    assert segment.get_extra_model_outputs(WEIGHTS_SEQ_NO).tolist() == [0, 0, 0, 1, 1, 1]
    for step in range(6):
        row = {Columns.OBS: batch[Columns.OBS][step : step + 1]}
        with torch.no_grad():
            inputs = (before if step < 3 else after)._forward_exploration(row)[Columns.ACTION_DIST_INPUTS]
        log_prob = TorchDiagGaussian.from_logits(inputs).logp(batch[Columns.ACTIONS][step : step + 1])
        np.testing.assert_allclose(batch[Columns.ACTION_DIST_INPUTS][step : step + 1], inputs, atol=1e-5)
        np.testing.assert_allclose(batch[Columns.ACTION_LOGP][step : step + 1], log_prob, rtol=1e-6, atol=1e-5)
    train("box", [segment])


def test_an_action_that_was_taken_instead_of_the_answer_is_trained_on_under_the_policy_that_answered(
    make_harness: Callable[..., CoreHarness],
) -> None:
    policy, override = learned_policy("box"), StepFlag.ACTION_GIVEN | StepFlag.OVERRIDE
    harness, taken = make_harness(policy, action="box"), np.array([2.0, 7.5], np.float32)
    handle = harness.one(start("a", observation(3))).handle
    policy.load_spare({name: torch.zeros_like(value) for name, value in module_of(action="box").state_dict().items()})
    policy.swap(1)
    replaced = harness.one(start("a", observation(3), flags=override, action=taken))
    harness.one(Row(handle, 1, StepFlag.TERMINATED, 1.0))
    segments = harness.segments()
    batch = train_batch("box", segments)
    np.testing.assert_allclose(batch[Columns.ACTIONS][0], normalize_action(taken, ACTIONS["box"]), atol=1e-6)
    with torch.no_grad():
        inputs = learned_module("box")._forward_exploration({Columns.OBS: batch[Columns.OBS]})[Columns.ACTION_DIST_INPUTS]
    expected = TorchDiagGaussian.from_logits(inputs).logp(batch[Columns.ACTIONS]).numpy()
    np.testing.assert_allclose(batch[Columns.ACTION_LOGP], expected, rtol=1e-6, atol=1e-5)
    assert replaced.log_prob == pytest.approx(float(expected[0]), abs=1e-5)
    assert segments[0].get_extra_model_outputs(WEIGHTS_SEQ_NO).tolist() == [0]


@pytest.mark.long
@pytest.mark.parametrize("action", ["discrete", "shifted", "box"])
def test_asked_and_logged_actions_of_one_episode_are_trained_on_alike(action: str) -> None:
    space, random, taken = ACTIONS[action], np.random.default_rng(1), []
    space.seed(1)
    hand_off = HandOffConfig(segment_steps=7)
    with running_serving_loop(learned_policy(action), action_space=space, hand_off=hand_off) as serve, serve.client() as client:
        episode = client.start_episode()
        for step in range(30):
            if random.random() < 0.5:
                taken.append(space.sample())
                client.log_action(episode, observation(step), taken[-1])
            else:
                taken.append(client.get_action(episode, observation(step)))
        client.end_episode(episode, observation(30))
        segments = collected(serve, 30)
    assert {tuple(sorted(segment.extra_model_outputs)) for segment in segments} == {
        tuple(sorted((Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS, WEIGHTS_SEQ_NO)))
    }
    batch = train_batch(action, segments)
    start = getattr(space, "start", None)
    executed = batch[Columns.ACTIONS].numpy() + start if start is not None else unsquash_action(batch[Columns.ACTIONS].numpy(), space)
    np.testing.assert_allclose(executed, np.stack(taken), atol=1e-5)
    module = learner_of(action).module[DEFAULT_MODULE_ID].unwrapped()
    with torch.no_grad():
        inputs = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    recomputed = module.get_train_action_dist_cls().from_logits(inputs).logp(batch[Columns.ACTIONS])
    np.testing.assert_allclose(recomputed, batch[Columns.ACTION_LOGP], rtol=1e-6, atol=1e-5)
    train(action, segments)


# Episodes that are not trained on --------------------------------------------------------------------------------------------------------


@pytest.fixture
def runner() -> Iterator[ExternalEnvRunner]:
    config = ppo_config().copy(copy_frozen=False)
    serving = ServingConfig(ListenConfig("127.0.0.1:0"), hand_off=HandOffConfig(segment_steps=2, sample_wait_s=5.0))
    config.environment(env_config=serving.to_env_config()).env_runners(num_env_runners=0)
    runner = ExternalEnvRunner(config=config, worker_index=0, num_workers=0)
    yield runner
    runner.stop()


@pytest.mark.long
def test_untrained_episodes_are_served_beside_trained_ones_and_leave_no_trace_in_the_batch_or_the_counts(runner: ExternalEnvRunner) -> None:
    with PolicyClient(runner.addresses()[0], config=CLIENT) as client:
        watched = client.start_episodes(["watched", "logged"], training_enabled=False)
        learned = client.start_episodes(["learned"])
        everyone = [*watched, *learned]
        for step in range(4):
            actions = client.get_actions(everyone[::2], np.stack([observation(-1, step), observation(1, step)]))
            assert all(ACTIONS["discrete"].contains(action) for action in actions)
            client.log_action("logged", observation(-2, step), step % 3)
            client.log_returns_batch(everyone, [10.0, 100.0, 1.0])
        client.end_episode("learned", observation(1, 4))
        for step in (4, 5):  # ray#22036: the others go on when one has ended
            client.get_action("watched", observation(-1, step))
        client.end_episodes(watched, np.stack([observation(-1, 6), observation(-2, 4)]), [True, False])
        stats = client.stats()
    assert (stats.steps_completed, stats.steps_untrained, stats.steps_waiting, stats.reward_sum) == (14, 10, 4, 444.0)
    segments: Any = runner.sample(num_timesteps=4)
    batch = train_batch("discrete", segments)
    assert batch[Columns.OBS][:, :2].tolist() == [[1.0, step] for step in range(4)]
    assert batch[Columns.REWARDS].tolist() == [1.0] * 4
    counts: Any = runner.get_metrics()
    names = ("num_env_steps_sampled", "num_env_steps_sampled_lifetime", "num_episodes", "episode_return_mean", "episode_len_mean")
    assert [counts[name].peek() for name in names] == [4, 4, 1, 4.0, 4.0]
    assert runner.num_env_steps_sampled_lifetime == 4


# Ends ------------------------------------------------------------------------------------------------------------------------------------


def value_targets(values: Array, rewards: list[float], *, terminated: bool) -> list[float]:
    """The targets of generalized advantage estimation (Schulman et al. 2016, eq. 16) plus the values."""
    config = learner_of("discrete").config
    targets, advantage, following = [], 0.0, 0.0 if terminated else float(values[-1])
    for reward, value in zip(reversed(rewards), reversed(values[:-1].tolist()), strict=True):
        advantage = reward + config.gamma * following - value + config.gamma * config.lambda_ * advantage
        targets.append(advantage + value)
        following = value
    return targets[::-1]


def values_of(segment: SingleAgentEpisode) -> Array:
    module = learner_of("discrete").module[DEFAULT_MODULE_ID].unwrapped()
    with torch.no_grad():
        values: Array = module.compute_values({Columns.OBS: torch.from_numpy(np.array(segment.get_observations()))}).numpy()
    return values


@pytest.mark.long
def test_only_an_end_by_the_environments_rules_has_no_value_after_it() -> None:
    rewards = [1.0, -2.0, 3.0, 0.5]
    idle, hand_off = EpisodesConfig(max_open=8, episode_idle_timeout_s=0.1), HandOffConfig(segment_steps=3)

    def play(client: PolicyClient, end: Callable[[str, Array], None]) -> None:
        episode = client.start_episode()
        for step, reward in enumerate(rewards):
            client.log_action(episode, observation(step), step % 3)
            client.log_returns(episode, reward)
        end(episode, observation(4))

    with running_serving_loop(learned_policy("discrete"), episodes=idle, hand_off=hand_off) as serve:
        with serve.client() as client:
            play(client, lambda episode, values: client.end_episode(episode, values))
            play(client, lambda episode, values: client.end_episode(episode, values, truncated=True))
            segments = collected(serve, 8)
            play(client, lambda episode, values: client.log_action(episode, values, 0))
        segments += collected(serve, 4)  # the client is gone: its last complete step is the last
    assert [len(segment) for segment in segments] == [3, 1, 3, 1, 3, 1]
    assert [segment.is_terminated for segment in segments] == [False, True, False, False, False, False]
    assert [segment.is_truncated for segment in segments] == [False, False, False, True, False, True]
    batch = train_batch("discrete", segments)
    columns = {name: batch[name].tolist() for name in (Columns.TERMINATEDS, Columns.TRUNCATEDS, Postprocessing.VALUE_TARGETS)}
    expected, cuts = [], []
    for segment in segments:
        expected += value_targets(values_of(segment), segment.get_rewards().tolist(), terminated=segment.is_terminated)
        cuts += [False] * (len(segment) - 1) + [not segment.is_terminated]
    np.testing.assert_allclose(columns[Postprocessing.VALUE_TARGETS], expected, rtol=1e-4, atol=1e-5)
    assert [row for row, terminated in enumerate(columns[Columns.TERMINATEDS]) if terminated] == [3]
    assert columns[Columns.TRUNCATEDS] == cuts
    last = [columns[Postprocessing.VALUE_TARGETS][row] for row in (3, 7, 11)]
    assert last[0] == pytest.approx(0.5), "after a terminal observation there is nothing"
    assert last[1] == pytest.approx(0.5 + learner_of("discrete").config.gamma * values_of(segments[3])[-1], abs=1e-5)
    assert last[1] == pytest.approx(last[2], abs=1e-5)
    assert abs(last[0] - last[1]) > 1e-3


# Rewards and infos -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_rewards_add_up_until_the_next_action_and_those_before_the_first_belong_to_none() -> None:
    with running_serving_loop(learned_policy("discrete")) as serve, serve.client() as client:
        episode = client.start_episode()
        client.log_returns(episode, 1000.0, {"note": "before the first action"})
        client.log_returns(episode, 500.0)
        client.get_action(episode, observation(0))
        client.log_returns(episode, 1.0)
        client.log_returns(episode, 0.25)
        client.log_returns(episode, -2.0)
        client.get_action(episode, observation(1))
        client.log_action(episode, observation(2), 1)
        client.log_returns(episode, 4.0)
        with pytest.raises(InvalidInputError):
            client.get_action(episode, observation(float("nan")))
        client.log_returns(episode, 8.0)
        client.end_episode(episode, observation(3))
        assert client.counters().rewards_dropped == 2
        assert client.stats().reward_sum == 11.25
        (segment,) = collected(serve, 3)
    assert train_batch("discrete", [segment])[Columns.REWARDS].tolist() == [-0.75, 0.0, 12.0]
    assert list(segment.get_infos()) == [{}] * 4


@pytest.mark.long
def test_an_info_arrives_with_its_own_observation_alone_on_either_side_of_a_segments_border() -> None:
    with running_serving_loop(learned_policy("discrete"), hand_off=HandOffConfig(segment_steps=2)) as serve, serve.client() as client:
        episode, other = client.start_episodes(2)
        for step in range(6):
            client.get_action(episode, observation(1, step))
            client.get_action(other, observation(2, step))
            if step in (1, 2, 5):  # it travels with the observation that follows
                client.log_returns(episode, 1.0, {"replaced": True})
                client.log_returns(episode, 1.0, {"said": step + 1, "list": [1, {"deep": None}]})
        client.end_episodes([episode, other], np.stack([observation(1, 6), observation(2, 6)]))
        segments = collected(serve, 12)
    said = {number: {"said": number, "list": [1, {"deep": None}]} for number in (2, 3, 6)}
    for segment in segments:
        number = int(segment.get_observations(0)[0])
        steps = segment.get_observations()[:, 1].astype(int).tolist()
        assert list(segment.get_infos()) == [said.get(step, {}) if number == 1 else {} for step in steps]
        for index, step in enumerate(steps):
            assert segment.get_infos(index) == (said.get(step, {}) if number == 1 else {})
    train("discrete", segments)


# Resumed episodes, reused ids ------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_an_episode_whose_stream_breaks_again_and_again_arrives_without_a_gap_or_a_step_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, answers = wire.encode_replies, itertools.count(1)

    def lose_every_third(*arguments: Any) -> Any:
        if next(answers) % 3 == 0:
            raise ConnectionError("the network is gone, after the rows were applied")
        return encode(*arguments)

    monkeypatch.setattr(wire, "encode_replies", lose_every_third)
    taken: dict[str, list[int]] = {"a": [], "b": []}
    with running_serving_loop(learned_policy("discrete"), hand_off=HandOffConfig(segment_steps=5)) as serve, serve.client() as client:
        client.start_episodes(["a", "b"])
        for step in range(12):
            for number, episode in enumerate(taken):
                taken[episode].append(int(client.get_action(episode, observation(number, step))))
                client.log_returns(episode, number + step)
        client.end_episodes(["a", "b"], np.stack([observation(0, 12), observation(1, 12)]))
        stats = client.stats()
        assert client.counters().connections > 5
        segments = collected(serve, 24)
    assert (stats.rows_repeated > 5, stats.steps_completed, stats.episodes_started, stats.episodes_finished) == (True, 24, 2, 2)
    assert sum(len(segment) for segment in segments) == 24
    for number, actions in enumerate(taken.values()):
        own = [segment for segment in segments if segment.get_observations(0)[0] == number]
        batch = train_batch("discrete", own)
        assert batch[Columns.OBS][:, 1].tolist() == list(range(12))
        assert batch[Columns.ACTIONS].tolist() == actions
        assert batch[Columns.REWARDS].tolist() == [number + step for step in range(12)]
        assert [(int(segment.t_started), segment.is_terminated) for segment in own] == [(0, False), (5, False), (10, True)]


@pytest.mark.long
def test_an_id_that_comes_again_is_refused_or_another_episode_at_the_learners_end() -> None:
    def play(client: PolicyClient, number: int) -> None:
        client.start_episode("same")
        with pytest.raises(EpisodeDuplicateError):
            client.start_episode("same")
        for step in range(3):
            client.get_action("same", observation(number, step))
        client.end_episode("same", observation(number, 3))

    with running_serving_loop(learned_policy("discrete"), episodes=EpisodesConfig(max_open=8, finished_remembered=3)) as serve:
        forgetful = serve.client(replace(CLIENT, closed_episodes_remembered=1))
        play(forgetful, 0)
        with pytest.raises(EpisodeFinishedError, match="Episode same has already completed"):
            forgetful.start_episode("same")
        play(serve.client(), 1)  # another client's ids are its own
        forgetful.start_episode("filler")
        forgetful.end_episode("filler", observation())
        forgetful.start_episode("same")  # the client has forgotten it, the server has not
        with pytest.raises(EpisodeFinishedError):
            forgetful.get_action("same", observation(2, 0))
        for filler in ("x", "y"):
            forgetful.start_episode(filler)
            forgetful.end_episode(filler, observation())
        play(forgetful, 3)  # both have forgotten it
        segments = collected(serve, 9)
        assert forgetful.stats().steps_completed == 9
    assert [segment.get_observations()[:, :2].tolist() for segment in segments] == [
        [[float(number), float(step)] for step in range(4)] for number in (0, 1, 3)
    ]
    assert len({segment.id_ for segment in segments} | {"same"}) == 4, "ids of the server's own"
    buffer = EpisodeReplayBuffer(capacity=100)
    buffer.add(copy.deepcopy(segments))
    assert (buffer.get_num_timesteps(), buffer.get_num_episodes()) == (9, 3)
    buffer.sample(num_items=4, batch_length_T=2)
    assert train_batch("discrete", segments)[Columns.OBS][:, 0].tolist() == [0.0] * 3 + [1.0] * 3 + [3.0] * 3
