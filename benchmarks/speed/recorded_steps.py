"""Steps of the demo's problem as this server hands them to a learner: played in this process, with no gRPC and no Ray between.

The same episode core, policy and hand-off as in a serving actor; the clients' part is a market of the pipelines' own prices, features and
accounts, without a forecast.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES

from policyserver.common.flags import StepFlag
from policyserver.pipelines.account import Account, AccountConfig
from policyserver.pipelines.features import FeatureState
from policyserver.pipelines.forecast.regressor import NO_PREDICTION
from policyserver.pipelines.prices import PricesConfig, make_source
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.received_rows import ReceivedRows, Replies
from policyserver.server.episodes.segments import EpisodeList
from policyserver.server.policies.policy_choice import make_policy

EPISODES = 64


class Market:
    """One episode of the demo's problem."""

    def __init__(self, index: int) -> None:
        source = make_source(PricesConfig(), seed=0)
        self._prices = source.episode(source.symbols[index % len(source.symbols)], index // len(source.symbols))
        self._features = FeatureState()
        for _ in range(self._prices.warmup_bars):
            self._next_bar()
        self._left = self._prices.n_steps
        self._account = Account(AccountConfig(), self._close)

    def observation(self) -> npt.NDArray[np.float32]:
        """Return what the policy sees now, float32[n]."""
        return self._features.observation(NO_PREDICTION, self._account, self._left / self._prices.n_steps)

    def step(self, action: int) -> float:
        """Trade at the next bar's open and return the reward at its close."""
        order = self._account.order(action)
        opened = self._next_bar()
        if order is not None:
            self._account.fill(order, opened)
        self._left -= 1
        return self._account.mark(self._close)

    def _next_bar(self) -> float:
        bar = self._prices.next_bar()
        assert bar is not None
        self._features.update(bar)
        self._close = bar.close
        return bar.open


def spaces_of(config: ServerConfig) -> dict[str, Any]:
    """Return a server's spaces under the names that RLlib's modules and learners look for."""
    spaces = (config.spaces.observation_space, config.spaces.action_space)
    return dict.fromkeys((INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID), spaces)


def recorded_steps(config: ServerConfig, algorithm: AlgorithmConfig, module: Any, steps: int) -> EpisodeList:
    """Play whole episodes of 200 steps, 64 at a time, and return about `steps` of theirs, the oldest.

    Args:
        config: The server's configuration.
        algorithm: The algorithm's, made of it.
        module: The net that acts; it is copied.
        steps: Steps wanted.
    """
    return asyncio.run(_play(config, algorithm, module, steps))


async def _play(config: ServerConfig, algorithm: AlgorithmConfig, module: Any, steps: int) -> EpisodeList:
    spaces = spaces_of(config)
    policy = make_policy(
        algorithm,
        module,
        algorithm.build_env_to_module_connector(spaces=spaces),
        algorithm.build_module_to_env_connector(spaces=spaces),
        *spaces[DEFAULT_MODULE_ID],
        seed=config.seed,
        backend="torch",
        callbacks_objects=(),
        env_runner=None,
    )
    observations, actions = spaces[DEFAULT_MODULE_ID]
    core = EpisodeCore(policy, observations, actions, config.episodes, config.hand_off, Demand(fragment_steps=steps, batches_ahead=100.0))
    client = core.connect("market")
    markets = [Market(index) for index in range(EPISODES)]

    async def send(flag: StepFlag, handles: Any, number: int, rewards: list[float]) -> Replies:
        rows = ReceivedRows(
            np.asarray(handles, np.uint64),
            np.full(EPISODES, number, np.uint32),
            np.full(EPISODES, int(flag), np.uint8),
            np.asarray(rewards, np.float64),
            [np.stack([market.observation() for market in markets])],
            [],
            [f"episode-{index}" for index in range(EPISODES)] if flag & StepFlag.START else [],
        )
        replies = await core.submit(rows, client)
        assert not replies.refusals, replies.refusals
        return replies

    replies = await send(StepFlag.START, np.zeros(EPISODES), 0, [0.0] * EPISODES)
    for number in range(1, -(-steps // EPISODES) + config.hand_off.segment_steps):  # the last segments are not full
        rewards = [market.step(int(action)) for market, action in zip(markets, replies.actions[0], strict=True)]
        replies = await send(StepFlag(0), replies.handles, number, rewards)
    taken: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    core.sample(steps, 0.0, taken.set_result)
    return EpisodeList(await taken)
