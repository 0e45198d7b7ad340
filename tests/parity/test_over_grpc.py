"""From a client's call over gRPC to what the env runner returns: the same episodes as RLlib's own runner's."""

from __future__ import annotations

import pickle
from collections import defaultdict
from dataclasses import replace

import pytest
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policyserver.client import PolicyClient
from policyserver.server.config.serving_config import HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.parity.comparison import check_batches, check_episodes, learner_batch, learner_of
from tests.parity.harness import Recording, Replay, cases, number_in, number_of, record
from tests.parity.test_parity import CONNECTED, FILTERED, PLAIN
from tests.server.serving_loop_harness import CLIENT

SETTINGS = {**PLAIN, **CONNECTED, **FILTERED}


def runner_like(recording: Recording) -> ExternalEnvRunner:
    """Make our env runner of the same configuration, with the weights of RLlib's."""
    setting, config = recording.setting, recording.config.copy(copy_frozen=False)
    serving = ServingConfig(ListenConfig("127.0.0.1:0"), hand_off=HandOffConfig(sample_wait_s=0.1, batches_ahead=100.0))
    config.env = None
    config.env_config = {}
    config.environment(observation_space=setting.observation_space, action_space=setting.action_space, env_config=serving.to_env_config())
    runner = ExternalEnvRunner(config=config, worker_index=0, num_workers=0)
    runner.set_state({"rl_module": recording.runner.module.get_state()})
    return runner


def play(recording: Recording, address: str) -> None:
    """Have a client do what was done in RLlib's environments, step by step in the same order."""
    with PolicyClient(address, config=replace(CLIENT, action_timeout_s=100.0, connect_timeout_s=100.0)) as client:
        for turn in recording.turns:
            for index, info in enumerate(turn.infos):
                name = str(number_in(info))
                if turn.is_new[index]:
                    client.start_episode(name)
                else:
                    client.log_returns(name, float(turn.rewards[index]), info)
                if turn.ends[index]:
                    client.end_episode(name, turn.observations[index], truncated=bool(turn.truncated[index]))
                elif turn.actions is not None:
                    client.log_action(name, turn.observations[index], turn.actions[index])


NAMES = ["lstm with its own value net", "own module on a Dict", "previous action and reward, nested spaces", "frames, float32"]


@pytest.mark.long
@pytest.mark.parametrize("name", cases([*NAMES, "flatten and filter"], "lstm with its own value net", "flatten and filter"))
def test_a_client_gets_rllibs_episodes_to_the_learner(name: str) -> None:
    # One environment: of the rows of several, those that meet in a message may be applied in another order, which a filter would notice.
    recording = record(replace(SETTINGS[name], num_envs=1), calls=(150,))
    runner = runner_like(recording)
    try:
        play(recording, runner.addresses()[0])
        assert runner._serving_loop is not None
        steps = int(runner._serving_loop.report(explores=True).counters["steps_waiting"])
        episodes: list[SingleAgentEpisode] = pickle.loads(pickle.dumps(runner.sample(num_timesteps=steps)))
    finally:
        runner.stop()
    done = Replay(defaultdict(list), [], [])
    for episode in episodes:
        if episode.t_started == 0:
            assert episode.get_infos(0) == {}, "a client can't say anything before its first action"
            episode.infos.data[0] = {**episode.get_infos(1), "step": 0}
        done.segments[number_of(episode)].append(episode)
    ours, theirs = check_episodes(recording, done, tolerance=1e-5)
    learner = learner_of(recording)
    check_batches(learner_batch(learner, ours), learner_batch(learner, theirs), 1e-5)
