"""Steps of the demo's problem as this server hands them to a learner: played in this process, with no gRPC and no Ray between.

The same episode core, policy and hand-off as in a serving actor; the clients' part is a block of the pipelines' own market, without
forecasts.
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
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.vector_env import begin_episodes
from policyserver.pipelines.prices import PricesConfig, make_source
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.received_rows import ReceivedRows, Replies
from policyserver.server.episodes.segments import EpisodeList
from policyserver.server.policies.connectors.policy_choice import make_policy

EPISODES = 64

_ACCOUNT = AccountConfig(max_leverage=None)
"""As in the demo's set-ups."""


class Markets:
    """The first episodes of the demo's problem, one in each row of a block."""

    def __init__(self) -> None:
        source = make_source(PricesConfig(), seed=0)
        self._rows = np.arange(EPISODES)
        self._block = EpisodeBlock(EPISODES, source.slots, Rules.of(RulesConfig(account=_ACCOUNT)))
        self._feed = BarFeed(EPISODES, len(source.slots))
        begin_episodes(self._block, self._feed, self._rows, source.episodes(range(EPISODES)))

    def observations(self) -> npt.NDArray[np.float32]:
        """Return what the policy sees now, float32 (EPISODES, size)."""
        return self._block.observe()

    def step(self, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Trade at the next bars' opens and return the rewards at their closes, float64 (EPISODES,)."""
        self._block.act(self._rows, actions)
        self._block.fill(self._rows, self._feed.next(self._rows))
        return self._block.mark(self._rows).rewards


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
        backend="torch",
        callbacks_objects=(),
        env_runner=None,
    )
    observations, actions = spaces[DEFAULT_MODULE_ID]
    core = EpisodeCore(policy, observations, actions, config.episodes, config.hand_off, Demand(fragment_steps=steps, batches_ahead=100.0))
    client = core.connect("market")
    markets = Markets()

    async def send(flag: StepFlag, handles: Any, number: int, rewards: npt.NDArray[np.float64]) -> Replies:
        rows = ReceivedRows(
            np.asarray(handles, np.uint64),
            np.full(EPISODES, number, np.uint32),
            np.full(EPISODES, int(flag), np.uint8),
            rewards,
            [markets.observations()],
            [],
            [f"episode-{index}" for index in range(EPISODES)] if flag & StepFlag.START else [],
        )
        replies = await core.submit(rows, client)
        assert not replies.refusals, replies.refusals
        return replies

    replies = await send(StepFlag.START, np.zeros(EPISODES), 0, np.zeros(EPISODES))
    for number in range(1, -(-steps // EPISODES) + config.hand_off.segment_steps):  # the last segments are not full
        rewards = markets.step(np.asarray(replies.actions[0], np.int64))
        replies = await send(StepFlag(0), replies.handles, number, rewards)
    taken: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    core.sample(steps, 0.0, taken.set_result)
    return EpisodeList(await taken)
