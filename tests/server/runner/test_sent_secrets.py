"""Certificate, key and token come over the link, and no file of them lies where the actor serves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from policyserver.client import ClientConfig, PolicyClient
from policyserver.common.errors import AuthenticationError
from policyserver.server.config.link_address import RemoteAddress
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.processes.link import SECRETS, Followed
from policyserver.server.processes.link_secret import make_identity
from policyserver.server.processes.remote_follower import RemoteFollower
from policyserver.server.processes.remote_link import RemoteLink
from policyserver.server.runner import sent_secrets
from policyserver.server.runner.serving_loop import ServingLoop
from policyserver.v1 import driver_link_pb2 as link_pb
from tests.server.core_harness import ACTION, OBSERVATION, module_of, observation, policy_of
from tests.services import wait_until

pytestmark = [pytest.mark.process, pytest.mark.long]
TOKEN = "0123456789abcdef"


@pytest.fixture
def link(missing_service: Callable[[str], NoReturn]) -> Iterator[RemoteLink]:
    made = RemoteLink("127.0.0.1", "1")
    yield made
    made.close()


@pytest.fixture
def loop(link: RemoteLink) -> Iterator[ServingLoop]:
    """A serving loop whose files are on another machine."""
    absent = Path("/nowhere")
    listen = ListenConfig("127.0.0.1:0", absent / "certificate", absent / "key", absent / "token")
    where = RemoteAddress(link.address, "unused", sends_secrets=True)
    config = ServingConfig(listen, EpisodesConfig(max_open=8), HandOffConfig(), driver_link=where)
    policy = policy_of(module_of())
    made = ServingLoop(lambda: EpisodeCore(policy, OBSERVATION, ACTION, config.episodes, config.hand_off), OBSERVATION, ACTION, config)
    made.start()
    follower = RemoteFollower(
        where,
        link.secret,
        link_pb.Hello(index=1, version="1", host="machine1"),
        Followed(lambda final: None, lambda: None, lambda state: None, lambda told: None, {SECRETS: made.sent_secrets.take}),
    )
    yield made
    follower.stop()
    made.stop()


def test_it_listens_with_what_the_daemon_sent(link: RemoteLink, loop: ServingLoop, tmp_path: Path) -> None:
    identity = make_identity("localhost")
    bound: list[str] = []
    binding = threading.Thread(target=lambda: bound.append(loop.bind()))
    binding.start()
    link.order(SECRETS, (identity.certificate, identity.key, TOKEN), stays=True)
    binding.join(60.0)
    assert bound, "it waits for them"
    for name, content in (("certificate", identity.certificate), ("token", TOKEN.encode()), ("other", b"another-token-but-as-long")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    address = bound[0].replace("127.0.0.1", "localhost")
    config = ClientConfig(tls_ca_file=tmp_path / "certificate", token_file=tmp_path / "token", connect_timeout_s=60.0)
    with PolicyClient(address, config=config) as client:
        assert client.get_action(client.start_episode(), observation()) in range(3)
    config = ClientConfig(tls_ca_file=tmp_path / "certificate", token_file=tmp_path / "other", connect_timeout_s=60.0)
    with PolicyClient(address, config=config) as client, pytest.raises(AuthenticationError):
        client.connect()


def test_without_them_it_does_not_listen(link: RemoteLink, loop: ServingLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent_secrets, "_LONGEST_WAIT_S", 0.1)
    wait_until(lambda: link.connected() == [1], "the actor")
    with pytest.raises(OSError, match=r"ray\.send_secrets"):
        loop.bind()
    assert loop.addresses == []
