"""Play scenes with several agents that share one policy, in a process of its own: each agent is an episode of that policy.

python -m tests.compliance.scene_player ADDRESS SCENES

Observations and rewards are random, as in RLlib's stand-in for a game engine. Agents may leave before their scene ends. Writes one JSON
object to standard output.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import numpy as np

from policyserver.client import ClientConfig, PolicyClient

AGENTS = 6
LONGEST = 60


@dataclass
class Scenes:
    """What was played."""

    scenes: int = 0
    agent_episodes: int = 0
    agent_steps: int = 0
    reward_sum: float = 0.0


def play_scene(client: PolicyClient, random: np.random.Generator, played: Scenes) -> None:
    """Play until the last agent has left or the scene's time is over."""
    agents = client.start_episodes(AGENTS)
    for _ in range(int(random.integers(LONGEST // 2, LONGEST))):
        actions = client.get_actions(agents, random.random((len(agents), 8), np.float32))
        assert actions.shape == (len(agents), 3)
        rewards = random.integers(-3, 4, len(agents)).astype(float)
        client.log_returns_batch(agents, rewards)
        played.agent_steps += len(agents)
        played.reward_sum += float(rewards.sum())
        leaving = [agent for agent in agents if random.random() < 0.02]
        if leaving:
            client.end_episodes(leaving, random.random((len(leaving), 8), np.float32))
            agents = [agent for agent in agents if agent not in leaving]
        if not agents:
            break
    if agents:
        client.end_episodes(agents, random.random((len(agents), 8), np.float32), truncated=True)
    played.scenes += 1
    played.agent_episodes += AGENTS


def main(arguments: list[str]) -> None:
    """Play as the command line says."""
    address, scenes = arguments
    random, played = np.random.default_rng(1), Scenes()
    with PolicyClient(address, config=ClientConfig(spread_episodes=False)) as client:  # the cases name the actor of each client
        for _ in range(int(scenes)):
            play_scene(client, random, played)
    json.dump(asdict(played), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
