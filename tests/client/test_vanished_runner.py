"""A runner that is gone without a word: the client's probes find that out, and a call ends by it, not by its own time.

What is between the two takes what is sent, as a proxy does, so that the system can't tell that nobody answers.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from policyserver.client import ClientConfig, EpisodeLostError, PolicyClient
from tests.client.conftest import Service
from tests.cuttable import CuttableWire
from tests.stalls import Stalls

ZEROS = np.zeros(10, np.float32)


def longest_s(config: ClientConfig) -> float:
    """Return after how long a client acts elsewhere at most, as the guide says: until it is noticed, and an attempt to connect again."""
    return 2 * (config.keepalive_time_s + config.keepalive_timeout_s) + 2.0


def test_by_default_it_is_noticed_before_a_call_gives_up() -> None:
    assert longest_s(ClientConfig()) == 42.0
    assert longest_s(ClientConfig()) < ClientConfig().action_timeout_s


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(200)
@pytest.mark.parametrize("rests_s", [0.0, 20.0], ids=["busy", "idle"])
@pytest.mark.parametrize("config", [ClientConfig(), ClientConfig(keepalive_time_s=2.0, keepalive_timeout_s=2.0)], ids=["default", "quick"])
def test_a_call_finds_its_episode_lost_and_new_ones_begin_elsewhere(service: Service, config: ClientConfig, rests_s: float) -> None:
    """Whether or not gRPC probes the bandwidth when nothing comes any more, as it does while there is traffic."""
    stays, goes = service
    with CuttableWire(goes.address) as wire:
        for runner in service:
            runner.servicer.endpoints = [stays.address, wire.address]
        with PolicyClient(stays.address, config=config) as client:
            ids = client.start_episodes(["a", "b"])
            client.get_actions(ids, np.zeros((2, 10), np.float32))
            (there,) = goes.servicer.episodes
            time.sleep(rests_s)
            wire.cut()
            with Stalls() as stalls:
                begun_s = time.monotonic()
                with pytest.raises(EpisodeLostError):
                    client.get_action(there, ZEROS)
                took_s = time.monotonic() - begun_s
            print(f"{config.keepalive_time_s:g} and {config.keepalive_timeout_s:g} s, rest {rests_s:g} s: {took_s:.1f} s")  # noqa: T201
            assert took_s < longest_s(config) + 1.0 + stalls.lost_s, "with some of the test's own"
            client.get_action(client.start_episode("c"), ZEROS)
            assert "c" in stays.servicer.episodes
