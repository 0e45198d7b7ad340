"""What a client of this machine sends stays on this machine, whichever proxies the environment names."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from policyserver.client import InsecureTargetError, PolicyClient, ServerUnavailableError
from tests.client.conftest import FAST
from tests.client.reference_server import ReferenceServer
from tests.proxies import NamedProxy

ZEROS = np.zeros(10, np.float32)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["http", "https", "grpc", "address"])
def test_a_client_of_this_machine_asks_no_proxy(server: ReferenceServer, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    actions = []
    with NamedProxy() as proxy:
        proxy.put_into_environment(monkeypatch, kind)
        with PolicyClient(server.address, config=FAST) as client:
            try:
                actions.append(client.get_action(client.start_episode(), ZEROS))
                client.stats()
            except ServerUnavailableError as error:
                actions.append(str(error))
    assert (actions, proxy.asked) == ([0], [])


def test_plaintext_and_a_localhost_that_is_another_machine_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))])
    with pytest.raises(InsecureTargetError, match=r"localhost:9900, .* but 192\.0\.2\.7 by this machine's hosts file"):
        PolicyClient("localhost:9900")
