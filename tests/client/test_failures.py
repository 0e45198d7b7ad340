"""Whatever breaks between client and server, each step counts once, or the caller gets an error that says what happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from policyserver.client import (
    ActionTimeoutError,
    AuthenticationError,
    BatchError,
    ClientConfig,
    EpisodeFinishedError,
    EpisodeLostError,
    HandshakeError,
    InsecureTargetError,
    PolicyClient,
    SequenceError,
    ServerInternalError,
    ServerUnavailableError,
)
from policyserver.client.stream import Stream
from policyserver.common.errors import EpisodeFinishedError as ServedFinishedError
from policyserver.v1 import policy_service_pb2 as pb
from tests.client.conftest import FAST
from tests.client.inner_parts import connection_of
from tests.client.reference_server import ReferenceServer, Servicer
from tests.client.test_threads_share_a_stream import wait_until

ZEROS = np.zeros(10, np.float32)
ONES = np.ones(10, np.float32)


@pytest.mark.long
def test_a_lost_reply_is_asked_for_again_and_the_step_counts_once(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    for step in range(6):
        server.servicer.lose_replies = 1
        assert client.get_action(episode, ZEROS) == 7 * step % 3
        client.log_returns(episode, 1.0)
    server.servicer.lose_replies = 1
    client.end_episode(episode, ZEROS)
    served = server.servicer.episodes[episode]
    assert (served.next, sum(served.rewards)) == (7, 6.0)
    assert server.servicer.repeated == 7
    assert client.counters().connections == 8
    assert len(server.servicer.clients) == 1


@pytest.mark.long
def test_every_step_of_many_threads_counts_once_however_often_the_stream_breaks(server: ReferenceServer, client: PolicyClient) -> None:
    def run(number: int) -> None:
        episode = client.start_episode(str(number))
        for step in range(30):
            if number == 0 and step % 5 == 0:
                server.servicer.lose_replies = 1
            assert client.get_action(episode, ZEROS) == 7 * step % 3
            client.log_returns(episode, 1.0)
        client.end_episode(episode, ZEROS)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    assert [sum(server.servicer.episodes[str(number)].rewards) for number in range(8)] == [30.0] * 8
    assert client.counters().connections >= 6


@pytest.mark.long
def test_episodes_go_on_after_a_pause_of_the_same_server(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    client.log_returns(episode, 3.0)
    server.stop()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get_action, episode, ZEROS)
        wait_until(lambda: connection_of(client).trouble is not None)
        server.start()
        assert waiting.result() == 7 % 3
    assert server.servicer.episodes[episode].rewards == [0.0, 3.0]


@pytest.mark.long
def test_a_restarted_server_loses_open_episodes_and_serves_new_ones_at_once(server: ReferenceServer, client: PolicyClient) -> None:
    old, waiting_one, unsent, fresh = client.start_episodes(["old", "waiting", "unsent", "fresh"])
    client.get_actions([old, waiting_one], np.zeros((2, 10)))
    server.stop()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.get_action, waiting_one, ZEROS)
        first = pool.submit(client.get_action, fresh, ZEROS)
        wait_until(lambda: client.counters().rows_waiting == 2)
        server.start(Servicer())
        with pytest.raises(EpisodeLostError, match="Episode waiting was lost with the serving process that had it; start a new one"):
            waiting.result()
        assert first.result() == 0
    for _ in range(2):
        with pytest.raises(EpisodeLostError, match="Episode old was lost"):
            client.get_action(old, ZEROS)
    with pytest.raises(EpisodeLostError):
        client.log_returns(old, 1.0)
    assert client.get_action(unsent, ZEROS) == 0
    assert client.get_action(client.start_episode("old"), ZEROS) == 0
    assert client.counters().episodes_lost == 2
    with pytest.raises(BatchError, match="1 of 2 rows failed; the first is row 1: EpisodeLostError") as caught:
        client.get_actions(["unsent", "waiting"], np.zeros((2, 10)))
    assert caught.value.actions.tolist() == [1, 0]


@pytest.mark.long
def test_rewards_after_a_first_step_that_is_refused_in_the_end_are_dropped_and_the_episode_goes_on(
    server: ReferenceServer, client: PolicyClient
) -> None:
    episode = client.start_episode()
    server.servicer.refuse = lambda *_: ServerInternalError("incident 9")
    server.hold()
    with pytest.raises(ActionTimeoutError):
        client.get_action(episode, ONES, timeout_s=0.05)
    client.log_returns(episode, 2.0, {"note": "for an action of its own"})
    server.release()
    with pytest.raises(ServerInternalError, match="incident 9"):
        client.get_action(episode, ONES)
    server.servicer.refuse = lambda *_: None
    client.get_action(episode, ZEROS)
    client.end_episode(episode, ZEROS)
    assert server.servicer.episodes[episode].rewards == [0.0, 0.0]
    assert client.counters().rewards_dropped == 1


@pytest.mark.long
def test_who_said_that_it_took_another_action_cannot_ask_any_more(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    server.hold()
    for call in (lambda: client.get_action(episode, ONES, timeout_s=0.05), lambda: client.log_action(episode, ONES, 2, timeout_s=0.05)):
        with pytest.raises(ActionTimeoutError):
            call()
    with pytest.raises(SequenceError, match="received another call"):
        client.get_action(episode, ONES)
    server.release()
    client.log_action(episode, ONES, 1)
    client.end_episode(episode, ZEROS)


@pytest.mark.long
def test_after_a_timeout_the_same_question_gets_the_same_action_once(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    client.log_returns(episode, 1.0)
    server.hold()
    with pytest.raises(ActionTimeoutError, match=r"expected an answer from .* within 0.05 s") as caught:
        client.get_action(episode, ONES, timeout_s=0.05)
    assert isinstance(caught.value, TimeoutError)
    client.log_returns(episode, 0.25)
    with pytest.raises(SequenceError, match=r"step 1 is still unanswered: .* received another observation"):
        client.get_action(episode, ZEROS)
    with pytest.raises(SequenceError, match="received another call"):
        client.end_episode(episode, ONES)
    server.release()
    assert client.get_action(episode, ONES) == 7 % 3
    client.end_episode(episode, ZEROS)
    assert server.servicer.episodes[episode].rewards == [0.0, 1.0, 0.25]


@pytest.mark.long
@pytest.mark.parametrize("step", [0, 1])
def test_after_a_timeout_the_action_taken_instead_is_logged_with_the_same_number(
    server: ReferenceServer, client: PolicyClient, step: int
) -> None:
    episode = client.start_episode()
    for _ in range(step):
        client.get_action(episode, ZEROS)
        client.log_returns(episode, 1.0)
    server.hold()

    def asks_in_vain() -> bool:
        with pytest.raises(ActionTimeoutError):
            client.get_action(episode, ONES, timeout_s=0.05)
        return episode in server.servicer.episodes and server.servicer.episodes[episode].next == step + 1

    wait_until(asks_in_vain)
    server.release()
    with pytest.raises(SequenceError):
        client.log_action(episode, ZEROS, 2)
    client.log_action(episode, ONES, 2)
    client.log_returns(episode, 4.0)
    client.end_episode(episode, ZEROS)
    served = server.servicer.episodes[episode]
    assert served.given == {step: 2}
    assert served.overridden == {step}
    assert served.rewards == [0.0, *[1.0] * step, 4.0]
    assert served.next == step + 2


@pytest.mark.long
def test_an_override_of_a_row_that_never_left_is_an_ordinary_given_action(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    server.stop()
    wait_until(lambda: connection_of(client).trouble is not None)
    with pytest.raises(
        ServerUnavailableError, match=r"expected a connection to .* within 0.05 s, received none; the last attempt: "
    ) as caught:
        client.get_action(episode, ONES, timeout_s=0.05)
    assert isinstance(caught.value, ConnectionError)
    server.start()
    client.log_action(episode, ONES, 1)
    served = server.servicer.episodes[episode]
    assert (served.given, served.overridden) == ({1: 1}, set())


@pytest.mark.long
def test_a_batch_that_times_out_has_an_error_in_each_row_and_can_be_asked_again(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(4)
    server.hold()
    with pytest.raises(BatchError, match="4 of 4") as caught:
        client.get_actions(ids, np.zeros((4, 10)), timeout_s=0.05)
    assert {type(error) for error in caught.value.errors.values()} == {ActionTimeoutError}
    server.release()
    client.log_action(ids[1], ZEROS, 2)
    assert client.get_action(ids[2], ZEROS) == 0
    assert client.get_actions([ids[3], ids[0]], np.zeros((2, 10))).tolist() == [0, 0]
    assert [server.servicer.episodes[episode].next for episode in ids] == [1, 1, 1, 1]


@pytest.mark.long
def test_rows_that_a_server_refuses_for_the_moment_are_sent_again(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(["a", "b"])
    client.get_actions(ids, np.zeros((2, 10)))
    client.log_returns_batch(ids, [1.0, 2.0])
    left = {"b": 3}

    def refuse(episode_id: str, _: int) -> ServerUnavailableError | None:
        left[episode_id] = left.get(episode_id, 0) - 1
        return ServerUnavailableError("not now", reason="SHUTTING_DOWN") if left[episode_id] >= 0 else None

    server.servicer.refuse = refuse
    assert client.get_actions(ids, np.zeros((2, 10))).tolist() == [1, 1]
    assert [sum(server.servicer.episodes[episode].rewards) for episode in ids] == [1.0, 2.0]


@pytest.mark.long
def test_a_server_that_goes_on_refusing_is_an_error_that_leaves_the_step_free(
    server: ReferenceServer, connect: Callable[..., PolicyClient]
) -> None:
    client = connect(replace(FAST, overload_backoff_initial_s=5.0))
    episodes: list[str] = []
    server.servicer.refuse = lambda _id, _: ServerUnavailableError("not now", reason="SHUTTING_DOWN")

    def is_refused_in_time() -> bool:
        episodes.append(client.start_episode())
        with pytest.raises((ServerUnavailableError, ActionTimeoutError)) as caught:
            client.get_action(episodes[-1], ZEROS, timeout_s=0.1 * 2 ** len(episodes))
        return "not now" in str(caught.value)

    wait_until(is_refused_in_time)
    server.servicer.refuse = lambda _id, _: None
    assert client.get_action(episodes[-1], ONES) == 0


def test_an_episode_that_the_server_ended_says_so_from_then_on(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode("e")
    client.get_action(episode, ZEROS)
    server.servicer.refuse = lambda _id, _: ServedFinishedError("ended: idle", reason="EPISODE_IDLE")
    with pytest.raises(EpisodeFinishedError, match="ended: idle"):
        client.get_action(episode, ZEROS)
    for call in (lambda: client.get_action(episode, ZEROS), lambda: client.start_episode(episode)):
        with pytest.raises(EpisodeFinishedError, match="was ended by the server, because its client was silent") as caught:
            call()
        assert caught.value.reason == "EPISODE_IDLE"


@pytest.mark.long
def test_an_unreachable_server_is_named_within_the_connect_timeout() -> None:
    with PolicyClient("127.0.0.1:1", config=replace(FAST, connect_timeout_s=0.3)) as client:
        began = time.monotonic()
        with pytest.raises(ServerUnavailableError, match=r"expected a connection to 127.0.0.1:1 within 0.3 s, .* the last attempt"):
            client.start_episode()
        assert time.monotonic() - began < FAST.connect_timeout_s / 2
        with pytest.raises(ServerUnavailableError, match=r"127.0.0.1:1"):
            client.stats()


@pytest.mark.long
def test_a_client_that_begins_before_its_server_waits_for_it(server: ReferenceServer) -> None:
    server.stop()
    with PolicyClient(server.address, config=FAST) as client, ThreadPoolExecutor(1) as pool:
        starting = pool.submit(client.start_episode)
        wait_until(lambda: connection_of(client).trouble is not None)
        server.start()
        assert client.get_action(starting.result(), ZEROS) == 0


@pytest.mark.long
def test_a_successor_with_other_spaces_is_refused_to_everyone_who_waits(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    server.stop()
    other = Servicer()
    other.observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get_action, episode, ZEROS)
        wait_until(lambda: client.counters().rows_waiting == 1)
        server.start(other)
        with pytest.raises(HandshakeError, match="observation_space"):
            waiting.result()


@pytest.mark.long
def test_a_missing_token_is_told_at_once_and_the_right_one_is_let_in(
    server: ReferenceServer, connect: Callable[..., PolicyClient], tmp_path: Path
) -> None:
    server.servicer.token = "s3cret"
    began = time.monotonic()
    with pytest.raises(AuthenticationError, match="authorization"):
        connect().start_episode()
    assert time.monotonic() - began < FAST.connect_timeout_s / 2
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    client = connect(replace(FAST, token_file=token))
    assert client.get_action(client.start_episode(), ZEROS) == 0


def test_an_answer_that_is_on_its_way_when_the_client_closes_is_no_malformed_message(
    client: PolicyClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Replies(list[pb.StepResponse]):
        def cancel(self) -> None: ...

    stream = Stream()
    stream.has_ended = True
    connection = connection_of(client)
    monkeypatch.setattr(connection.channel, "step", lambda requests: Replies([pb.StepResponse(batch=pb.StepReply())]))
    assert "the server ended the stream" in str(connection._converse(stream))
    assert not caplog.records


def test_plaintext_off_the_machine_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(InsecureTargetError, match=r"tls_ca_file and token_file: expected both .* trading\.example:9900"):
        PolicyClient("trading.example:9900")
    token = tmp_path / "token"
    token.write_text("t")
    with pytest.raises(InsecureTargetError, match=r"^tls_ca_file: expected both"):
        PolicyClient("10.0.0.1:9900", config=ClientConfig(token_file=token))
    with pytest.raises(ValueError, match=r"token_file: expected a readable file, received .*nowhere"):
        PolicyClient("localhost:9900", config=ClientConfig(token_file=tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("action_timeout_s", 0.0),
        ("connect_timeout_s", float("inf")),
        ("messages_in_flight", 0),
        ("max_reply_bytes", 1.5),
        ("waits_for_learner", 0.0),
        ("spread_episodes", 1),
    ],
)
def test_a_bad_setting_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^argument of ClientConfig: {field}: expected .*, received {value}"):
        ClientConfig(**{field: value})  # type: ignore[arg-type]
