"""What arrives in the batches of real learners: APPO's of exploring episodes of `live` alone, DQN's of all that may be trained on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from ray.rllib.connectors.learner.learner_connector_pipeline import LearnerConnectorPipeline

from policyserver.client import PolicyClient, PolicyServerError
from tests.server.live_algorithm import live_algorithm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("private_ray"), pytest.mark.filterwarnings("ignore")]

KINDS: dict[int, dict[str, Any]] = {
    1: {"policy": "live"},
    2: {"policy": "live", "explore": False},
    3: {"policy": "live@start"},
    4: {"policy": "live@start", "explore": False},
    5: {"policy": "live", "training_enabled": False},
}
"""What an episode asks for, by the first number of all its observations."""
STEPS, LEAST, TIMEOUT_S = 12, 100, 400.0


class Seen:
    """The episodes that learners' pipelines are given, by kind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kinds: Counter[int] = Counter()
        call = LearnerConnectorPipeline.__call__

        def seen(pipeline: Any, *, episodes: Any, **kwargs: Any) -> Any:
            self.kinds.update(int(kind) for episode in episodes for kind in np.unique(np.asarray(episode.get_observations())[:, 0]))
            return call(pipeline, episodes=episodes, **kwargs)

        monkeypatch.setattr(LearnerConnectorPipeline, "__call__", seen)


def play(client: PolicyClient, stop: threading.Event, played: Counter[int]) -> None:
    """Play short episodes of each kind, one after the other."""
    try:
        while not stop.is_set():
            for kind, wanted in KINDS.items():
                episode, observation = client.start_episode(**wanted), np.array([kind, 0.1, -0.2, 0.3], np.float32)
                for _ in range(STEPS):
                    client.get_action(episode, observation)
                    client.log_returns(episode, 1.0)
                client.end_episode(episode, observation)
                played[kind] += 1
    except PolicyServerError:
        assert stop.is_set()


@pytest.mark.parametrize(("name", "expected"), [("APPO", {1}), ("PPO", {1}), ("DQN", {1, 2, 3, 4})])
def test_the_learner_is_given_what_it_can_learn_from(name: str, expected: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen, played, stop = Seen(monkeypatch), Counter[int](), threading.Event()
    with live_algorithm(name, num_env_runners=0) as (algorithm, address):
        client = PolicyClient(address)
        player = threading.Thread(target=play, args=(client, stop, played))
        player.start()
        try:
            until_s = time.monotonic() + TIMEOUT_S
            while seen.kinds.total() < LEAST or not expected <= seen.kinds.keys() or min(played[kind] for kind in KINDS) < 10:
                assert time.monotonic() < until_s, (seen.kinds, played)
                algorithm.train()
        finally:
            stop.set()
            client.close()
            player.join(30.0)
        assert not player.is_alive()
    assert seen.kinds.keys() == expected, f"all kinds were played: {played}"
