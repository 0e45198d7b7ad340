"""A server without a learner serves further checkpoints to episodes that name them: configured, loaded while it runs, and dropped."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from policyserver.client import InvalidInputError, PolicyClient, PolicyUnknownError
from policyserver.common.settings import SettingsError, load
from policyserver.common.tensors import from_tensor, to_tensor
from policyserver.monitoring.store.reader import StoreReader
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.policies.connectors.policy_choice import make_policy
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from policyserver.server.runner.env_runner import ExternalEnvRunner
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc
from tests.commands import ctl, ctl_answer, run_here
from tests.integration.daemon_process import DaemonProcess
from tests.ports import DIRECT, free_ports
from tests.server.alone.test_lone_server import READY_S, trained_run
from tests.server.export_harness import ServedEpisode, observations, run_config_of, saved, trained


def played(client: PolicyClient, values: list[Any], **wanted: Any) -> list[int]:
    episode = client.start_episode(**wanted)
    actions = []
    for value in values:
        actions.append(int(client.get_action(episode, value)))
        client.log_returns(episode, 1.0)
    client.end_episode(episode, values[-1])
    return actions


def over_unary(address: str, values: list[Any], policy: pb.EpisodePolicy) -> list[int]:
    with grpc.insecure_channel(address, DIRECT) as channel:
        stub = pb_grpc.PolicyServiceStub(channel)
        episode = stub.StartEpisode(pb.StartEpisodeRequest(episode_id="a", policy=policy)).episode_id
        requests = [pb.GetActionRequest(episode_id=episode, observation=[to_tensor(value)]) for value in values]
        return [int(from_tensor(stub.GetAction(request).action[0], "action")) for request in requests]


@pytest.mark.process
@pytest.mark.timeout(600)
def test_checkpoints_are_served_by_name_in_one_process(tmp_path: Path) -> None:
    config = trained_run(tmp_path)
    policy = saved(config)
    other = tmp_path / "other"
    saved(load(ServerConfig, config.run_folder / "server.toml", {"run_folder": str(other)}))
    values = observations(config)
    served = ServedEpisode(policy, "a", explore=False)
    expected = [int(served.ask(value)[0]) for value in values]
    address = f"127.0.0.1:{free_ports(1)[0]}"
    run_folder = tmp_path / "alone"
    checkpoint = config.checkpoints_folder / "checkpoint-00000001"
    options = ["--config", str(config.run_folder / "server.toml"), "--learner.enabled", "false", "--checkpoint", str(checkpoint)]
    options += ["--policies.load", f'{{other = "{other}/checkpoints/checkpoint-00000001"}}', "--policies.most", "2"]
    options += ["--algorithm.env_runners", "{explore = true}"]
    with DaemonProcess(run_folder, address, *options) as process:
        process.wait_ready(READY_S)
        with PolicyClient(address) as client:
            assert played(client, values, policy="other", explore=False) == expected
            assert client.weights_seq_no == 70
            with pytest.raises(PolicyUnknownError, match="expected one of live, live@start, other, received 'checkpoint-1'"):
                played(client, values, policy="checkpoint-1")
            with pytest.raises(InvalidInputError, match="policy: expected a text of 1 to 256 bytes"):
                client.start_episode(policy=7)  # type: ignore[arg-type]
            loaded = ctl_answer(run_folder, "load", "1")["policy"]
            assert (loaded["name"], loaded["checkpoint"]["number"]) == ("checkpoint-1", 1)
            assert ctl_answer(run_folder, "load", "1")["policy"] == loaded, "a second time it does nothing"
            assert len(played(client, values, policy="live@start")) == len(values)
            for arguments, message in (
                (["load", "1", "--name", "third"], "expected at most 2 loaded policies (policies.most), received one more, 'third'"),
                (["load", "7", "--name", "third"], "expected the number of a checkpoint that is there, 1, received 7"),
                (["load", "1", "--name", "live"], "expected a name of up to 64 letters"),
                (["load", "1", "--name", "other"], "expected a new one, received 'other'"),
                (["promote", "other"], "expected a server that learns"),
            ):
                ended = ctl(run_folder, *arguments)
                assert (ended.returncode, message in ended.stderr) == (1, True), ended.stderr
            status = ctl_answer(run_folder, "status")
            assert [each["name"] for each in status["policies"]] == ["other", "checkpoint-1"]
            assert ctl(run_folder, "drop", "other").returncode == 0
            again = ctl(run_folder, "drop", "other", "--json")
            assert json.loads(again.stdout) == {"was_loaded": False, "loaded": ["checkpoint-1"]}
            assert "no loaded policy is called 'other'; loaded: checkpoint-1" in again.stderr
            with pytest.raises(PolicyUnknownError):
                played(client, values, policy="other", explore=False)
            figures = {each.policy: each.episodes_finished for each in client.stats().policies}
            assert figures == {"other greedy": 1, "live@start": 1}
        assert over_unary(address, values, pb.EpisodePolicy(name="checkpoint-1", greedy=True)) == expected
        with grpc.insecure_channel(address, DIRECT) as channel, pytest.raises(grpc.RpcError) as refusal:
            pb_grpc.PolicyServiceStub(channel).StartEpisode(pb.StartEpisodeRequest(policy=pb.EpisodePolicy(name="other")))
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        assert ctl(run_folder, "drain").returncode == 0
        assert process.process.wait(READY_S) == 0, process.text()
    with contextlib.closing(StoreReader(run_folder / "store.sqlite")) as reader:
        rows = reader.select('SELECT policy, length, "return", explored, trained FROM whole_episode ORDER BY id', ())
        assert rows == [("other greedy", 12, 12.0, 0, 0), ("live@start", 12, 12.0, 1, 0)]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(600)
def test_a_shadows_actions_are_recorded_and_never_sent(tmp_path: Path) -> None:
    config = trained_run(tmp_path)
    saved(config)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = ["--config", str(config.run_folder / "server.toml"), "--learner.enabled", "false"]
    options += ["--checkpoints.folder", str(config.checkpoints_folder), "--policies.load", "{same = 1}", "--traffic.shadow", "same"]
    run_folder = tmp_path / "alone"
    with DaemonProcess(run_folder, address, *options) as process:
        process.wait_ready(READY_S)
        with PolicyClient(address) as client:
            actions = played(client, observations(config), policy="live")
            (figures,) = [each for each in client.stats().policies if each.policy == "same shadow"]
            assert (figures.actions, figures.agreement) == (12, 1.0), "it is the very policy that serves"
        assert process.terminate(READY_S) == 0
    with contextlib.closing(StoreReader(run_folder / "store.sqlite")) as reader:
        rows = reader.select("SELECT policy, step, sent, shadow, weights_seq_no FROM shadow ORDER BY step", ())
        assert rows == [("same", step, f"{action}", f"{action}", 70) for step, action in enumerate(actions)]
        joined = 'SELECT "return", count(*), sum(sent != shadow) FROM whole_episode JOIN shadow USING (run, episode, client)'
        assert reader.select(f"{joined} GROUP BY whole_episode.id", ()) == [(12.0, 12, 0)], "with the episodes' own rows"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"traffic.shares": {"live": 0.5, "champion": 0.4}, "policies.load": {"champion": 1}}, "which add up to 0.9"),
        ({"traffic.shares": {"live": 0.5, "champion": 0.5}}, "traffic.shares.champion: expected one of live, live@start"),
        ({"traffic.shares": {"live": 1.0, "champion": 0.0}}, "shares.champion: expected a number above 0"),
        ({"traffic.shadow": "champion"}, "traffic.shadow: expected one of no shadow, for policies.load names no policy"),
        ({"policies.load": {"live": 1}}, "expected a name of up to 64 letters"),
        ({"policies.load": {"champion": 0}}, "policies.load.champion: expected the number of a checkpoint"),
        ({"policies.load": {"a": 1, "b": 2}, "policies.most": 1}, "expected at most 1 (policies.most), received 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(ServerConfig, None, settings)
    assert message in str(refused.value)


@pytest.mark.process
def test_a_checkpoint_of_another_net_is_refused_before_the_start(tmp_path: Path) -> None:
    config = trained_run(tmp_path)
    saved(config)
    other = run_config_of(net={"fcnet_hiddens": [8]}, connectors__mean_std_filter=True, run_folder=str(tmp_path / "wider"))
    saved(other)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = ["--config", str(config.run_folder / "server.toml"), "--learner.enabled", "false", "--listen.address", address]
    options += ["--policies.load", f'{{wider = "{tmp_path}/wider/checkpoints/checkpoint-00000001"}}']
    ended = run_here("policy-server", "serve", *options)
    assert ended.returncode == 2
    assert "policies.load.wider: " in ended.stderr
    assert "made with algorithm.rl_module.model_config.fcnet_hiddens = [8], but the configuration says [16]" in ended.stderr


@pytest.mark.long
@pytest.mark.parametrize(("name", "replays"), [("PPO", False), ("APPO", False), ("IMPALA", False), ("DQN", True), ("SAC", True)])
def test_a_learner_with_a_replay_buffer_is_known_by_its_configuration(name: str, replays: bool) -> None:
    config = run_config_of(name=name)
    built = algorithm_config(config, ExternalEnvRunner)
    policy = trained(config)
    parts = policy.module, policy.env_to_module, policy.module_to_env
    spaces = built.observation_space, built.action_space
    made = make_policy(built, *parts, *spaces, backend="torch", callbacks_objects=[], env_runner=None)
    assert isinstance(made, VectorizedPolicy)
    assert made.replays is replays
