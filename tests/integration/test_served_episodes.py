"""A server's record has the episodes of any client, each once."""

from __future__ import annotations

import contextlib
import uuid

import numpy as np

from policyserver.client import ClientConfig, PolicyClient
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.store import place_of
from tests.live_server import Serving
from tests.services import wait_until

OBSERVATION = np.zeros(4, np.float32)


def play(client: PolicyClient, name: str, steps: int) -> None:
    client.start_episode(name)
    for _ in range(steps):
        client.get_action(name, OBSERVATION)
        client.log_returns(name, 1.0)
    client.end_episode(name, OBSERVATION)


def test_episodes_are_recorded_by_the_server_unless_their_client_does(cartpole_serving: Serving) -> None:
    store, mark = cartpole_serving.run_folder / "store.sqlite", uuid.uuid4().hex
    options = ClientConfig(waits_for_learner=False)
    recording = ClientConfig(waits_for_learner=False, records_in=(place_of(store),))
    with PolicyClient(cartpole_serving.address, config=recording) as one, PolicyClient(cartpole_serving.address, config=options) as other:
        play(one, f"{mark}-own", 3)
        for number in (1, 2):
            play(other, f"{mark}-{number}", number)
    with contextlib.closing(StoreReader(store)) as reader:
        found = 'SELECT episode, length, "return", ended, explored, trained FROM whole_episode WHERE episode LIKE ?'
        wait_until(lambda: len(reader.select(found, (f"{mark}%",))) >= 2, "the episodes in the store")
        expected = [(f"{mark}-{number}", number, float(number), "terminated", 1, 1) for number in (1, 2)]
        assert sorted(reader.select(found, (f"{mark}%",))) == expected
        wait_until(lambda: reader.newest("result", "run"), "the mean")
