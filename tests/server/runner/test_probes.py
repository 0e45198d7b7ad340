"""A client may look as often as each second whether its connection still lives, so that it soon acts elsewhere."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from policyserver.client import PolicyClient
from tests.server.core_harness import observation
from tests.server.serving_loop_harness import CLIENT, ServingLoopHarness

PROBES = 5
"""More than gRPC takes of a client that looks more often than it may: it closes the connection at the third."""


@pytest.mark.slow  # it waits, for as long as so many probes take
def test_a_connection_that_is_probed_each_second_stays_open(serve: ServingLoopHarness) -> None:
    with PolicyClient(serve.address, config=replace(CLIENT, keepalive_time_s=1.0)) as client:
        episode = client.start_episode()
        client.get_action(episode, observation())
        time.sleep(PROBES + 0.5)
        client.log_returns(episode, 1.0)
        client.get_action(episode, observation())
        assert client.counters().connections == 1
