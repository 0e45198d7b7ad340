"""An episode core on a real loop whose clock can be moved on, and small nets to serve with it."""

from __future__ import annotations

import asyncio
import functools
import pickle
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policyserver.common.acting.action_form import ActionForm
from policyserver.common.errors import PolicyServerError
from policyserver.common.flags import StepFlag
from policyserver.common.spaces import flatten
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.episode_table import EpisodeTable, ServedClient
from policyserver.server.episodes.received_rows import ReceivedRows, Replies
from policyserver.server.episodes.segments import EpisodeList, SegmentBlock
from policyserver.server.episodes.trajectories import Trajectories
from policyserver.server.policies.module.inference import PolicyNet
from policyserver.server.policies.policy import Policy
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy

torch.set_num_threads(1)  # as in a serving process; more of them wait for each other on a busy machine

Array = npt.NDArray[Any]
T = TypeVar("T")

OBSERVATION = gym.spaces.Box(-100.0, 100.0, (10,), np.float32)
ACTION: gym.spaces.Discrete[np.int64] = gym.spaces.Discrete(3)
NEVER_WAITS = Demand(batches_ahead=100.0)
"""For tests about something else than the room: the learner may be far behind."""
MODELS = {
    "mlp": {"fcnet_hiddens": [16], "vf_share_layers": True},
    "lstm_shared": {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5, "vf_share_layers": True},
    "lstm_apart": {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5, "vf_share_layers": False},
}


def spaces_of(observation: gym.Space[Any], action: gym.Space[Any]) -> dict[str, Any]:
    return dict.fromkeys((INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID), (observation, action))


@functools.cache
def ppo_config(model: str = "mlp", *, action: str = "discrete") -> Any:
    return (
        PPOConfig()
        .environment(observation_space=OBSERVATION, action_space=ACTIONS[action])
        .training(train_batch_size_per_learner=256, minibatch_size=64, num_epochs=1, lr=1e-3)
        .rl_module(model_config=DefaultModelConfig(**cast(Any, MODELS[model])))
        .debugging(seed=1, log_level="WARN")
    )


ACTIONS: dict[str, gym.Space[Any]] = {
    "discrete": ACTION,
    "box": gym.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)),
    "shifted": gym.spaces.Discrete(3, start=5),
}


@functools.cache
def learner_of(model: str) -> Any:
    """A PPO learner; it lives as long as the tests, for building one takes a second."""
    return ppo_config(model).build_learner(spaces=spaces_of(OBSERVATION, ACTION))


def learner_batch(learner: Any, episodes: list[SingleAgentEpisode]) -> dict[str, Any]:
    """Run a learner's own connector pipeline; it changes the episodes."""
    batch = learner._learner_connector(rl_module=learner.module, batch={}, episodes=episodes, shared_data={}, metrics=learner.metrics)
    return dict(batch[DEFAULT_MODULE_ID])


def module_of(model: str = "mlp", *, action: str = "discrete") -> Any:
    return ppo_config(model, action=action).get_rl_module_spec(spaces=spaces_of(OBSERVATION, ACTIONS[action]), inference_only=True).build()


def module_of_learner(model: str) -> Any:
    module = module_of(model)
    state = learner_of(model).get_state(components=COMPONENT_RL_MODULE, inference_only=True)
    module.set_state(state[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID])
    return module


def policy_of(module: Any, *, action: str = "discrete", explore: bool = True, **options: Any) -> VectorizedPolicy:
    options = {"state_every": int(module.model_config.get("max_seq_len", 20)), "seed": 3, **options}
    return VectorizedPolicy(PolicyNet(module, explore=explore), form_of(action), OBSERVATION, ACTIONS[action], **options)


def form_of(action: str) -> ActionForm:
    return ActionForm(ACTIONS[action], normalize=True, clip=False)


def observation(*values: float) -> Array:
    """An observation that begins with some values."""
    return np.array([*values, *np.zeros(10 - len(values))], np.float32)


@dataclass
class Row:
    """One row on its way to the core."""

    handle: int = 0
    sequence: int = 0
    flags: int = 0
    reward: float = 0.0
    observation: Any = None
    action: Any = None
    episode_id: str = ""
    info: dict[str, Any] | None = None


def start(episode_id: str, observation_: Any = None, **rest: Any) -> Row:
    rest["flags"] = rest.get("flags", 0) | StepFlag.START
    return Row(episode_id=episode_id, observation=observation_, **rest)


def pack(rows: Sequence[Row], action_dtype: Any = np.int64, space: gym.Space[Any] = OBSERVATION, flags: int = 0) -> ReceivedRows:
    given = [row.action for row in rows if row.flags & StepFlag.ACTION_GIVEN]
    values = [observation() if row.observation is None else row.observation for row in rows]
    observations = [[value] if isinstance(space, gym.spaces.Box) else flatten(space, value) for value in values]  # a Box's may be bad
    return ReceivedRows(
        np.array([row.handle for row in rows], np.uint64),
        np.array([row.sequence for row in rows], np.uint32),
        np.array([row.flags | flags for row in rows], np.uint8),
        np.array([row.reward for row in rows], np.float64),
        [np.stack(leaf) for leaf in zip(*observations, strict=True)],
        [np.array(given, action_dtype)] if given else [],
        [row.episode_id for row in rows if row.flags & StepFlag.START],
        {index: row.info for index, row in enumerate(rows) if row.info is not None},
    )


def columns(handles: Any, sequence: int, flags: StepFlag, ids: Sequence[str] = ()) -> ReceivedRows:
    """Make the rows of many episodes that do the same at once, far faster than `pack` would."""
    count = len(handles)
    full = np.full(count, sequence, np.uint32), np.full(count, flags, np.uint8), np.full(count, 0.0)
    return ReceivedRows(np.asarray(handles, np.uint64), *full, [np.zeros((count, 10), np.float32)], [], list(ids))


class _ImpatientSelector(selectors.DefaultSelector):
    """A selector that waits for nothing: instead of until a loop's next timer it moves the loop's clock on to that."""

    loop: SkippingLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(None if timeout is None else 0.0)
        if timeout and not events:
            self.loop.skipped_s += timeout
        return events


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still unless it is moved on, or nothing is left to do before a timer.

    So a test of a timeout takes no time, and none is over early though the machine stands still for seconds.
    """

    def __init__(self) -> None:
        self.skipped_s = 0.0
        self._began_s = time.monotonic()
        selector = _ImpatientSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._began_s + self.skipped_s


@dataclass
class Answer:
    """The reply to one row."""

    handle: int
    action: Any
    log_prob: float
    weights_seq_no: int
    error: PolicyServerError | None


def table_of(core: EpisodeCore) -> EpisodeTable:
    return core._table


def trajectories_of(core: EpisodeCore) -> Trajectories:
    return core._trajectories


def timers_of(core: EpisodeCore) -> int:
    """Return how many clients without a stream a timer runs for."""
    return len(core._idle_timers)


class CoreHarness:
    """Submits rows to an episode core and collects what it hands off."""

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        action: str = "discrete",
        observation_space: gym.Space[Any] = OBSERVATION,
        action_space: gym.Space[Any] | None = None,
        episodes: EpisodesConfig | None = None,
        hand_off: HandOffConfig | None = None,
        demand: Demand | None = None,
    ) -> None:
        self.policy = policy or policy_of(module_of(action=action), action=action)
        self.observation_space, self.action_space = observation_space, action_space or ACTIONS[action]
        self.loop = SkippingLoop()
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        self.failures: list[dict[str, Any]] = []
        self.core = EpisodeCore(
            self.policy,
            observation_space,
            self.action_space,
            episodes or EpisodesConfig(max_open=512),
            hand_off or HandOffConfig(),
            demand or NEVER_WAITS,
        )
        self._flags = int(StepFlag.NO_WAIT) if demand is None else 0
        self.client = self.connect("client")

    @property
    def pages_used(self) -> int:
        """Pages that hold recorded steps."""
        return trajectories_of(self.core).pages_used

    def close(self) -> None:
        self.loop.close()
        assert not self.failures, self.failures

    def connect(self, client_id: str) -> ServedClient:
        return self.on_loop(lambda: self.core.connect(client_id))

    def disconnect(self, client: ServedClient) -> None:
        self.on_loop(lambda: self.core.disconnect(client))

    def post(self, *rows: Row, client: ServedClient | None = None) -> asyncio.Future[Replies]:
        """Submit rows as one message, and let the loop turn until nothing more happens by itself."""
        done = self.on_loop(lambda: self.core.submit(self._packed(rows), client or self.client))
        self.settle()
        return done

    def send(self, *rows: Row, client: ServedClient | None = None) -> list[Answer]:
        """Submit rows as one message and return the answers."""
        return answers_of(self.loop.run_until_complete(self.post(*rows, client=client)))

    def send_messages(self, *messages: Sequence[Row]) -> list[list[Answer]]:
        """Submit several messages in the same turn of the loop."""
        futures = self.on_loop(lambda: [self.core.submit(self._packed(rows), self.client) for rows in messages])
        return [answers_of(self.loop.run_until_complete(future)) for future in futures]

    def submit(self, rows: ReceivedRows) -> Array:
        """Submit rows that must all be applied; return their handles."""

        async def submitted() -> Replies:
            return await self.core.submit(rows, self.client)

        replies = self.loop.run_until_complete(submitted())
        assert not replies.refusals
        return replies.handles

    def one(self, row: Row, client: ServedClient | None = None) -> Answer:
        """Submit one row that must be applied."""
        (answer,) = self.send(row, client=client)
        assert answer.error is None, answer.error
        return answer

    def refusal(self, row: Row, client: ServedClient | None = None) -> PolicyServerError:
        """Submit one row that must be refused."""
        (answer,) = self.send(row, client=client)
        assert answer.error is not None, f"expected a refusal, received {answer}"
        return answer.error

    def play(
        self, episode_id: str, steps: int, *, flags: int = 0, end: StepFlag = StepFlag.TERMINATED, client: ServedClient | None = None
    ) -> int:
        """Play an episode with reward 1 in every step and return its handle."""
        handle = self.one(start(episode_id, observation(0, 0), flags=flags), client).handle
        for number in range(1, steps):
            self.one(Row(handle, number, reward=1.0, observation=observation(0, number)), client)
        self.one(Row(handle, steps, end, 1.0, observation(0, steps)), client)
        return handle

    def blocks(self, *, wait_s: float = 0.0) -> list[SegmentBlock]:
        """Take everything that waits for the learner."""
        done: asyncio.Future[list[SegmentBlock]] = self.loop.create_future()
        self.on_loop(lambda: self.core.sample(10**9, wait_s, done.set_result, or_fewer=True))
        return self.loop.run_until_complete(done)

    def segments(self) -> list[SingleAgentEpisode]:
        """Take everything that waits for the learner, as it arrives there: those that follow each other in their episode joined."""
        return arrived(self.blocks())

    def segments_apart(self) -> list[SingleAgentEpisode]:
        """Take everything that waits for the learner, each segment as it arrives where it comes alone."""
        return arrived(apart(self.blocks()))

    def advance(self, seconds: float) -> None:
        """Move the clock on and let what is due happen."""
        self.loop.skipped_s += seconds
        self.settle()

    def settle(self) -> None:
        for _ in range(6):
            self.loop.run_until_complete(asyncio.sleep(0))

    def _packed(self, rows: Sequence[Row]) -> ReceivedRows:
        return pack(rows, self.action_space.dtype, self.observation_space, self._flags)

    def on_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self.loop.run_until_complete(call())


def answers_of(replies: Replies) -> list[Answer]:
    return [
        Answer(
            int(replies.handles[row]),
            replies.actions[0][row],
            float(replies.log_probs[row]),
            int(replies.weights_seq_nos[row]),
            replies.refusals.get(row),
        )
        for row in range(len(replies.handles))
    ]


def apart(blocks: list[SegmentBlock]) -> list[SegmentBlock]:
    """Make segments strangers to each other, so that none is joined with the one before it."""
    return [replace(block, episodes=np.arange(len(block.episodes)) + 10**6 * number) for number, block in enumerate(blocks)]


def arrived(blocks: list[SegmentBlock]) -> list[SingleAgentEpisode]:
    """Send blocks through pickle, as Ray does between the serving process and the learner's."""
    return cast(list[SingleAgentEpisode], pickle.loads(pickle.dumps(EpisodeList(blocks))))
