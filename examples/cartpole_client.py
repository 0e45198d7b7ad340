"""CartPole, played here and learned there.

    policy-server serve --config examples/cartpole_server.toml
    python examples/cartpole_client.py

The environments run in threads of this process; their calls share one connection and are answered in batches. The server may be killed and
started again meanwhile, within the half minute that a new episode waits for it: open episodes are lost, new ones begin, and the policy goes
on from its last checkpoint.
"""

from __future__ import annotations

import argparse
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym

from policyserver.client import EpisodeLostError, PolicyClient, ServerEndedError


def play(client: PolicyClient, seed: int) -> float | None:
    """Play one episode and return the sum of its rewards; None if it was lost with the server."""
    environment = gym.make("CartPole-v1")
    observation, _ = environment.reset(seed=seed)
    returned, terminated, truncated = 0.0, False, False
    try:
        episode = client.start_episode()
        while not (terminated or truncated):
            action = client.get_action(episode, observation)
            observation, reward, terminated, truncated, _ = environment.step(action)
            client.log_returns(episode, reward)
            returned += float(reward)
        client.end_episode(episode, observation, truncated=truncated)
    except EpisodeLostError:
        return None
    return returned


def main() -> None:
    """Play a number of episodes, some at a time, and print how it goes."""
    parser = argparse.ArgumentParser(description="Play CartPole with the actions of a policy server.")
    parser.add_argument("--address", default="127.0.0.1:9900", help="the server's (default: 127.0.0.1:9900)")
    parser.add_argument("--environments", type=int, default=8, help="episodes at a time (default: 8)")
    parser.add_argument("--episodes", type=int, default=800, help="episodes in all (default: 800)")
    options = parser.parse_args()
    newest: deque[float] = deque(maxlen=50)
    lost = 0
    with PolicyClient(options.address) as client, ThreadPoolExecutor(options.environments) as pool:
        try:
            client.connect()
            first = (client.client_number or 0) * options.episodes  # beside another client, other seeds
            seeds = range(first, first + options.episodes)
            for number, returned in enumerate(pool.map(lambda seed: play(client, seed), seeds), start=1):
                if returned is None:
                    lost += 1
                else:
                    newest.append(returned)
                if number % 50 == 0 or number == options.episodes:
                    mean = sum(newest) / max(len(newest), 1)
                    print(
                        f"{number:5} episodes   mean return {mean:6.1f}   policy version {client.weights_seq_no:3}   {lost} lost",
                        flush=True,
                    )
        except ServerEndedError as error:  # an evaluation has all its episodes, or the server was stopped for good
            print(f"no more episodes: {error}")
        finally:
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
