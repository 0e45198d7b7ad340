"""A serving loop on a free port, with clients and stubs of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import gymnasium as gym

from policyserver.client import ClientConfig, PolicyClient
from policyserver.common.errors import PolicyServerError
from policyserver.common.tensors import from_tensor, to_tensor
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.segments import SegmentBlock
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from policyserver.server.runner.serving_loop import ServingLoop
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc
from tests.ports import DIRECT
from tests.server.core_harness import ACTION, NEVER_WAITS, OBSERVATION, apart, arrived, module_of, observation, policy_of

CLIENT = ClientConfig(action_timeout_s=20.0, connect_timeout_s=10.0, reconnect_backoff_initial_s=0.02, reconnect_backoff_max_s=0.1)


@dataclass
class ServingLoopHarness:
    """A running serving loop and what talks to it."""

    serving_loop: ServingLoop
    policy: VectorizedPolicy
    address: str
    stack: ExitStack = field(default_factory=ExitStack)

    def client(self, config: ClientConfig = CLIENT, **options: Any) -> PolicyClient:
        return self.stack.enter_context(PolicyClient(self.address, config=config, **options))

    def channel(self) -> grpc.Channel:
        return self.stack.enter_context(grpc.insecure_channel(self.address, DIRECT))

    def stub(self) -> pb_grpc.PolicyServiceStub:
        return pb_grpc.PolicyServiceStub(self.channel())

    def segments(self, want_steps: int = 1, wait_s: float = 60.0, *, joined: bool = True) -> list[Any]:
        """Take what ended episodes and full pages hold, as soon as it is so many steps; segments of one episode joined, or each alone."""
        blocks: list[SegmentBlock] = []
        until_s = time.monotonic() + wait_s
        while True:
            blocks += self.serving_loop.sample(10**6, 0.01, or_fewer=True)
            if sum(block.steps for block in blocks) >= want_steps or time.monotonic() >= until_s:
                return arrived(blocks if joined else apart(blocks))

    def batch(self, want_steps: int) -> list[Any]:
        """Take a batch, as a learner does."""
        return arrived(self.serving_loop.sample(want_steps, 60.0))

    def skip(self, seconds: float) -> None:
        """Move the clock of the loop's timers on: a timeout of an hour is over at once, and none of a second because a machine is slow."""
        loop: Any = self.serving_loop._loop
        before_s = loop.time

        def after_s() -> float:
            return float(before_s()) + seconds

        self.serving_loop.call(lambda: setattr(loop, "time", after_s))

    def now_s(self) -> float:
        """Return the time by that clock."""
        return self.serving_loop.call(self.serving_loop._loop.time)


@contextmanager
def running_serving_loop(
    policy: VectorizedPolicy | None = None,
    *,
    observation_space: gym.Space[Any] = OBSERVATION,
    action_space: gym.Space[Any] = ACTION,
    episodes: EpisodesConfig | None = None,
    hand_off: HandOffConfig | None = None,
    listen: ListenConfig | None = None,
    demand: Demand = NEVER_WAITS,
    address: str = "127.0.0.1:0",
) -> Iterator[ServingLoopHarness]:
    """Serve a policy, by default that of a small PPO module, on a free port.

    A test that binds the port again names an `address` that the system gives to nobody else meanwhile; see `tests.ports.free_address`.
    """
    listen = replace(listen or ListenConfig(), address=address)
    serving = ServingConfig(listen, episodes or EpisodesConfig(max_open=256), hand_off or HandOffConfig())
    served, spaces = policy or policy_of(module_of()), (observation_space, action_space)
    serving_loop = ServingLoop(lambda: EpisodeCore(served, *spaces, serving.episodes, serving.hand_off, demand), *spaces, serving)
    serving_loop.start()
    harness = ServingLoopHarness(serving_loop, served, serving_loop.bind())
    try:
        with harness.stack:
            yield harness
    finally:
        serving_loop.stop()


def refused_start(client: PolicyClient, timeout_s: float = 0.3) -> PolicyServerError:
    """Begin episodes for so long, and return what they are refused with; a try that had no answer in that time is repeated."""
    until_s = time.monotonic() + 60.0
    while True:
        try:
            client.get_action(client.start_episode(), observation(), timeout_s=timeout_s)
        except PolicyServerError as error:
            if "received none" not in str(error) or time.monotonic() > until_s:
                return error
        else:
            raise AssertionError("expected a refusal, the episode began")


class Unary:
    """A caller of the plain calls, as a program in another language would be."""

    def __init__(self, stub: pb_grpc.PolicyServiceStub, client_id: str = "") -> None:
        self.stub = stub
        self.client_id = client_id

    def start(self, episode_id: str = "", **options: Any) -> str:
        request = pb.StartEpisodeRequest(client_id=self.client_id, episode_id=episode_id, **options)
        return str(self.stub.StartEpisode(request).episode_id)

    def get_action(self, episode_id: str, observation: Any, **options: Any) -> tuple[int, float]:
        request = pb.GetActionRequest(client_id=self.client_id, episode_id=episode_id, observation=[to_tensor(observation)], **options)
        reply = self.stub.GetAction(request)
        return int(from_tensor(reply.action[0], "action")), reply.action_log_prob

    def log_action(self, episode_id: str, observation: Any, action: Any, **options: Any) -> None:
        tensors: dict[str, Any] = {"observation": [to_tensor(observation)], "action": [to_tensor(action)]}
        self.stub.LogAction(pb.LogActionRequest(client_id=self.client_id, episode_id=episode_id, **tensors, **options))

    def log_returns(self, episode_id: str, reward: float, info: Any = None) -> None:
        text = json.dumps(info) if info is not None else ""
        self.stub.LogReturns(pb.LogReturnsRequest(client_id=self.client_id, episode_id=episode_id, reward=reward, info_json=text))

    def end(self, episode_id: str, observation: Any, **options: Any) -> None:
        request = pb.EndEpisodeRequest(client_id=self.client_id, episode_id=episode_id, observation=[to_tensor(observation)], **options)
        self.stub.EndEpisode(request)
