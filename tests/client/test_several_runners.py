"""A client spreads its episodes over all runners of a service, and a runner that fails costs its own rows and episodes alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from policyserver.client import ActionTimeoutError, AuthenticationError, BatchError, EpisodeLostError, PolicyClient, ServerUnavailableError
from tests.client.conftest import FAST, Service, addresses
from tests.client.inner_parts import connections_of, hurry
from tests.client.reference_server import ReferenceServer, Servicer
from tests.client.test_threads_share_a_stream import wait_until

ZEROS = np.zeros(10, np.float32)


def reboot(runner: ReferenceServer) -> None:
    """Put another process in the place of one that was stopped."""
    successor = Servicer()
    successor.endpoints = runner.servicer.endpoints
    runner.start(successor)


def batch(rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.zeros((rows, 10), np.float32)


def held(runner: ReferenceServer) -> set[str]:
    return set(runner.servicer.episodes)


@pytest.mark.long
def test_new_episodes_go_where_this_client_has_the_fewest_and_of_equals_to_the_first_listed(
    serve: Callable[..., Service], connect_to: Callable[..., PolicyClient]
) -> None:
    service = serve(3)
    service[0].servicer.endpoints = [service[index].address for index in (1, 2, 0)]
    client = connect_to(service)
    for episode in client.start_episodes(["a", "b", "c", "d", "e", "f", "g"]):
        client.get_action(episode, ZEROS)
    assert [held(service[index]) for index in (1, 2, 0)] == [{"a", "d", "g"}, {"b", "e"}, {"c", "f"}]
    for episode in ("b", "e", "c"):
        client.end_episode(episode, ZEROS)
    client.get_actions(client.start_episodes(["h", "i", "j"]), batch(3))
    assert [held(service[index]) & {"h", "i", "j"} for index in (1, 2, 0)] == [set(), {"h", "i"}, {"j"}]
    assert [runner.servicer.clients.total() for runner in service] == [1, 1, 1]


@pytest.mark.long
def test_a_lone_caller_talks_to_one_runner(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(service)
    for _ in range(3):
        episode = client.start_episode()
        client.get_action(episode, ZEROS)
        client.end_episode(episode, ZEROS)
    assert [len(held(runner)) for runner in service] == [3, 0]


@pytest.mark.long
def test_a_batch_is_split_by_runner_and_comes_back_in_order(serve: Callable[..., Service], connect_to: Callable[..., PolicyClient]) -> None:
    service = serve(3)
    client = connect_to(service)
    ids = client.start_episodes(30)
    for episode in ids[::-1]:
        client.get_action(episode, ZEROS)
    steps = [1 + index % 4 for index in range(30)]
    for count in range(1, 4):
        ahead = [episode for episode, done in zip(ids, steps, strict=True) if done > count]
        assert client.get_actions(ahead, batch(len(ahead))).tolist() == [7 * count % 3] * len(ahead)
    observations = np.arange(300, dtype=np.float32).reshape(30, 10) % 100
    assert client.get_actions(ids, observations).tolist() == [7 * done % 3 for done in steps]
    client.log_returns_batch(ids, range(30))
    client.end_episodes(ids, batch(30), [index % 2 == 0 for index in range(30)])
    served = {name: episode for runner in service for name, episode in runner.servicer.episodes.items()}
    assert [len(held(runner)) for runner in service] == [10, 10, 10]
    assert [served[episode].observations[-2] for episode in ids] == observations.tolist()
    assert [sum(served[episode].rewards) for episode in ids] == list(range(30))
    assert client.counters().episodes_open == 0
    assert (client.counters().connections, client.counters().rows_answered) == (3, sum(steps) + 60)


@pytest.mark.long
def test_many_threads_play_on_all_runners_and_each_step_counts_once_however_often_a_stream_breaks(
    service: Service, connect_to: Callable[..., PolicyClient]
) -> None:
    client = connect_to(service)
    begun = threading.Barrier(8)

    def run(number: int) -> None:
        episodes = client.start_episodes([f"{number}-{name}" for name in "abc"])
        assert client.get_actions(episodes, batch(3)).tolist() == [0] * 3
        client.log_returns_batch(episodes, [1.0] * 3)
        begun.wait()
        for step in range(1, 30):
            if number == 0 and step % 4 == 0:
                service[step // 4 % 2].servicer.lose_replies = 1
            assert client.get_actions(episodes, batch(3)).tolist() == [7 * step % 3] * 3
            client.log_returns_batch(episodes, [1.0] * 3)
        client.end_episodes(episodes, batch(3))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    assert not held(service[0]) & held(service[1])
    rewards = [sum(episode.rewards) for runner in service for episode in runner.servicer.episodes.values()]
    assert rewards == [30.0] * 24
    assert [len(held(runner)) for runner in service] == [12, 12]
    assert client.counters().connections >= 6


def test_a_call_asks_all_runners_at_once_and_waits_for_all(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(service)
    ids = client.start_episodes(4)
    for runner in service:
        runner.hold()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.get_actions, ids, batch(4))
        wait_until(lambda: [runner.servicer.message_rows for runner in service] == [[2], [2]])
        service[1].release()
        wait_until(lambda: client.counters().rows_answered == 2)
        assert not asked.done()
        service[0].release()
        assert asked.result().tolist() == [0] * 4


@pytest.mark.long
def test_one_runner_that_does_not_answer_costs_its_own_rows_alone(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(service)
    ids = client.start_episodes(4)
    client.get_actions(ids, batch(4))
    service[1].hold()
    failures: list[BatchError] = []

    def is_answered_by_the_other_in_time() -> bool:
        with pytest.raises(BatchError) as caught:
            client.get_actions(ids, batch(4), timeout_s=0.5 * 2 ** len(failures))
        failures.append(caught.value)
        return 0 not in caught.value.errors

    wait_until(is_answered_by_the_other_in_time)
    assert {row: type(error) for row, error in failures[-1].errors.items()} == {1: ActionTimeoutError, 3: ActionTimeoutError}
    assert service[1].address in str(failures[-1].errors[1])
    assert failures[-1].actions.tolist() == [1, 0, 1, 0]
    assert client.get_actions(ids[::2], batch(2)).tolist() == [2, 2]
    service[1].release()
    assert client.get_actions(ids, batch(4)).tolist() == [0, 1, 0, 1]
    assert [episode.next for episode in service[1].servicer.episodes.values()] == [2, 2]


@pytest.mark.long
@pytest.mark.parametrize("dying", [0, 1], ids=["the one that was given", "another"])
def test_a_runner_that_dies_takes_its_own_episodes_along_and_is_used_again_once_it_is_back(
    service: Service, connect_to: Callable[..., PolicyClient], dying: int
) -> None:
    client = connect_to(service)
    lost, kept = service[dying], service[1 - dying]
    ids = client.start_episodes(["0", "1", "2", "3"])
    apart = client.start_episodes(["4", "5"])[dying]
    client.get_actions([*ids, "4", "5"], batch(6))
    lost.stop()
    with pytest.raises(BatchError, match="2 of 4 rows failed") as caught:
        client.get_actions(ids, batch(4))
    assert {row: type(error) for row, error in caught.value.errors.items()} == {dying: EpisodeLostError, dying + 2: EpisodeLostError}
    assert sorted(caught.value.actions.tolist()) == [0, 0, 1, 1], "the others have their actions"
    with pytest.raises(EpisodeLostError, match=f"Episode {apart} was lost"):
        client.get_action(apart, ZEROS)
    new = client.start_episodes(["new 0", "new 1"])
    assert client.get_actions(new, batch(2)).tolist() == [0, 0]
    assert held(kept) >= {"new 0", "new 1"}, "new episodes go to the runner that is there"
    assert client.server_info().boot_id == kept.servicer.boot_id
    assert list(client.stats_by_endpoint()) == [kept.address]
    reboot(lost)
    wait_until(lambda: len(client.stats_by_endpoint()) == 2)
    client.get_actions(client.start_episodes(3), batch(3))
    assert len(held(lost)) == 3, "it has fewer of this client's open episodes now"
    assert client.get_actions(new, batch(2)).tolist() == [1, 1]
    assert client.counters().episodes_lost == 3


@pytest.mark.long
def test_a_runner_that_was_only_away_ends_the_episodes_that_were_given_up(
    service: Service, connect_to: Callable[..., PolicyClient]
) -> None:
    client = connect_to(service)
    ids = client.start_episodes(2)
    client.get_actions(ids, batch(2))
    service[1].stop()
    with pytest.raises(BatchError, match="EpisodeLostError"):
        client.get_actions(ids, batch(2))
    service[1].start()
    client.get_action(client.start_episode("new"), ZEROS)
    wait_until(lambda: len(client.stats_by_endpoint()) == 2)
    assert len(service[1].servicer.clients) == 2, "to the server the client that had them is gone"


@pytest.mark.long
def test_while_all_are_away_nothing_is_given_up(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(service)
    ids = client.start_episodes(4)
    client.get_actions(ids, batch(4))
    for runner in service:
        runner.stop()
    wait_until(lambda: not any(connection.is_open for connection in connections_of(client)))
    with pytest.raises(ServerUnavailableError):
        client.get_action(ids[0], ZEROS, timeout_s=0.3)
    hurry(client, 0.5)
    with pytest.raises(ServerUnavailableError):
        client.start_episode()
    hurry(client, FAST.connect_timeout_s)
    assert client.counters().episodes_lost == 0
    for runner in service:
        reboot(runner)
    with pytest.raises(EpisodeLostError):
        client.get_action(ids[0], ZEROS)
    client.get_actions(client.start_episodes(4), batch(4))
    assert [len(held(runner)) for runner in service] == [2, 2]


@pytest.mark.long
def test_an_endpoint_that_cannot_be_reached_gets_no_episodes_and_is_told_once(
    service: Service, connect_to: Callable[..., PolicyClient], caplog: pytest.LogCaptureFixture
) -> None:
    service[1].stop()
    listed = [*addresses(service), "10.0.0.1:9900"]
    for runner in service:
        runner.servicer.endpoints = listed
    client = connect_to(service)
    for _ in range(3):
        episodes = client.start_episodes(3)
        client.get_actions(episodes, batch(3))
    assert len(held(service[0])) == 9
    service[0].stop()
    reboot(service[0])
    wait_until(lambda: client.counters().connections == 2)
    client.get_actions(client.start_episodes(2), batch(2))
    warnings = [
        record.getMessage() for record in caplog.records if record.levelname == "WARNING" and record.name.startswith("policyserver")
    ]
    assert len(warnings) == 2, warnings
    assert "10.0.0.1:9900: no episodes go to this serving runner: tls_ca_file and token_file" in warnings[0]
    assert f"{service[1].address}: no new episodes go to this serving runner while it is not connected" in warnings[1]
    service[1].start()
    wait_until(lambda: client.counters().connections == 3)
    client.get_action(client.start_episode("late"), ZEROS)
    assert held(service[1]) == {"late"}


def test_a_client_may_keep_to_the_address_it_was_given(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(service, replace(FAST, spread_episodes=False))
    client.get_actions(client.start_episodes(4), batch(4))
    assert [len(held(runner)) for runner in service] == [4, 0]
    assert (client.counters().connections, list(client.stats_by_endpoint())) == (1, [service[0].address])


@pytest.mark.long
def test_an_address_that_the_server_does_not_know_is_a_tunnel_whose_other_ports_mean_nothing(
    service: Service, connect_to: Callable[..., PolicyClient], caplog: pytest.LogCaptureFixture
) -> None:
    service[0].servicer.endpoints = ["127.0.0.1:1", service[1].address]
    client = connect_to(service)
    client.get_actions(client.start_episodes(4), batch(4))
    assert [len(held(runner)) for runner in service] == [4, 0]
    assert [record.levelname for record in caplog.records if "all episodes go through this address" in record.getMessage()] == ["WARNING"]


@pytest.mark.long
def test_a_successor_with_other_runners_is_followed(
    serve: Callable[..., Service], service: Service, connect_to: Callable[..., PolicyClient]
) -> None:
    client = connect_to(service)
    ids = client.start_episodes(4)
    client.get_actions(ids, batch(4))
    third = serve(1)[0]
    service[1].hold()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get_action, ids[1], ZEROS)
        wait_until(lambda: service[1].servicer.message_rows == [2, 1])
        service[0].stop()
        service[0].servicer.endpoints = third.servicer.endpoints = [service[0].address, third.address]
        reboot(service[0])
        with pytest.raises(EpisodeLostError):
            waiting.result()
    service[1].release()
    for episode in ids:
        with pytest.raises(EpisodeLostError):
            client.get_action(episode, ZEROS)
    client.get_actions(client.start_episodes(4), batch(4))
    assert [len(held(runner)) for runner in (service[0], third, service[1])] == [2, 2, 2]
    assert list(client.stats_by_endpoint()) == addresses([service[0], third])


@pytest.mark.long
def test_a_runner_that_refuses_this_client_costs_its_own_rows_alone(
    service: Service, connect_to: Callable[..., PolicyClient], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    for runner in service:
        runner.servicer.token = "s3cret"
    client = connect_to(service, replace(FAST, token_file=token))
    ids = client.start_episodes(2)
    client.get_actions(ids, batch(2))
    service[1].stop()
    service[1].servicer.token = "another"
    service[1].start()
    with pytest.raises(BatchError) as caught:
        client.get_actions(ids, batch(2))
    assert (caught.value.actions.tolist(), list(caught.value.errors)) == ([1, 0], [1])
    assert isinstance(caught.value.errors[1], AuthenticationError)
    with pytest.raises(AuthenticationError):
        client.get_action(ids[1], ZEROS)
    client.get_actions(client.start_episodes(["x", "y"]), batch(2))
    assert held(service[0]) >= {"x", "y"}


def test_a_runner_with_other_spaces_gets_no_episodes(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    service[1].servicer.observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    client = connect_to(service)
    client.get_actions(client.start_episodes(4), batch(4))
    assert [len(held(runner)) for runner in service] == [4, 0]


@pytest.mark.long
def test_statistics_are_those_of_all_runners(service: Service, connect_to: Callable[..., PolicyClient]) -> None:
    client = connect_to(service)
    assert list(client.stats_by_endpoint()) == addresses(service), "a question connects, as an episode does"
    client.get_actions(client.start_episodes(5), batch(5))
    each = client.stats_by_endpoint()
    assert [stats.episodes_open for stats in each.values()] == [3, 2]
    assert client.stats().episodes_open == 5
    assert client.stats().boot_id == "+".join(runner.servicer.boot_id for runner in service)
    assert client.stats().training is not None
    assert client.server_info().boot_id == service[0].servicer.boot_id


@pytest.mark.long
def test_runners_may_listen_on_unix_sockets(serve: Callable[..., Service], connect_to: Callable[..., PolicyClient], tmp_path: Path) -> None:
    service = serve(2, [f"unix:{tmp_path}/socket", f"unix:{tmp_path}/socket.1"])
    client = connect_to(service)
    client.get_actions(client.start_episodes(4), batch(4))
    assert [len(held(runner)) for runner in service] == [2, 2]


@pytest.mark.long
def test_close_wakes_a_call_that_waits_for_several_runners_and_leaves_no_thread(
    service: Service, connect_to: Callable[..., PolicyClient]
) -> None:
    before = set(threading.enumerate())
    client = connect_to(service)
    ids = client.start_episodes(4)
    for runner in service:
        runner.hold()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get_actions, ids, batch(4))
        wait_until(lambda: client.counters().rows_sent == 4)
        client.close()
        with pytest.raises(Exception, match="closed"):
            waiting.result(timeout=100.0)
    client.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(60.0)
        assert not thread.is_alive(), thread.name
