"""A small real gRPC server that keeps the protocol's rules for steps, and breaks what a test tells it to break.

Its policy: the action is 7 * sequence mod 3 on Discrete(3), so that a test can tell which number an action answers.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import gymnasium as gym
import numpy as np
from grpc_health.v1 import health, health_pb2_grpc

from policyserver.common.errors import EpisodeUnknownError, HandshakeError, PolicyServerError, SequenceError, to_metadata, to_row_error
from policyserver.common.flags import PROTOCOL_VERSION, StepFlag
from policyserver.common.spaces import describe, from_proto, same, to_proto
from policyserver.common.tensors import from_tensor, to_tensor
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc
from tests.ports import free_ports

OBSERVATION_SPACE: gym.Space[Any] = gym.spaces.Box(-100, 100, (10,), np.float32)
ACTION_SPACE: gym.Space[Any] = gym.spaces.Discrete(3)
RowRefusal = Callable[[str, int], PolicyServerError | None]


@dataclass
class Served:
    """One episode as the server saw it."""

    id: str
    handle: int
    next: int = 0
    row: tuple[Any, ...] = ()
    action: int = 0
    given: dict[int, int] = field(default_factory=dict)
    overridden: set[int] = field(default_factory=set)
    rewards: list[float] = field(default_factory=list)
    observations: list[list[float]] = field(default_factory=list)
    infos: dict[int, str] = field(default_factory=dict)
    end: StepFlag | None = None
    training_enabled: bool = True


class Servicer(pb_grpc.PolicyServiceServicer):
    """Holds the episodes of one boot."""

    def __init__(self) -> None:
        self.boot_id = uuid.uuid4().hex
        self.observation_space: gym.Space[Any] = OBSERVATION_SPACE
        self.action_space: gym.Space[Any] = ACTION_SPACE
        self.max_rows = 4096
        self.episodes: dict[str, Served] = {}
        self.by_handle: dict[int, Served] = {}
        self.message_rows: list[int] = []
        self.clients: Counter[str] = Counter()
        self.streams = 0
        """Streams that are open."""
        self.repeated = 0
        self.lose_replies = 0
        """Number of replies to lose: the rows are applied, the stream is cut before the answer."""
        self.refuse: RowRefusal = lambda episode_id, sequence: None
        """Says whether to refuse a row."""
        self.gate = asyncio.Event()
        """Replies wait while it is clear."""
        self.gate.set()
        self.token = ""
        self.endpoints: list[str] = []
        self.identity: dict[str, Any] = {}
        """What it says of its run, its id and its stop, by field."""
        self.stale = False
        """Whether it says that it has not heard of its daemon."""
        self.handshakes: list[pb.Handshake] = []
        self.writing = asyncio.Lock()
        """Held while a message is written: a stream takes one at a time."""
        self.contexts: list[Any] = []
        """Of the streams that are open."""
        self.loads: dict[str, int] = {}
        """Episodes at each address, as it says in handshakes."""
        self.numbers = itertools.count()
        """Of the clients."""
        self.reward_error = 0.0
        """What its episodes of rewards is wrong by."""

    async def Step(self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if self.token and ("authorization", f"Bearer {self.token}") not in (context.invocation_metadata() or ()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "authorization: expected a token of this server, received another")
        first = await context.read()
        if first is grpc.aio.EOF:  # type: ignore[attr-defined]
            return
        handshake = first.handshake
        error = self._disagreement(handshake)
        if error is not None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error), to_metadata(error))
        self.clients[handshake.client_id] += 1
        self.streams += 1
        try:
            await self._answer(context, handshake)
        finally:
            self.streams -= 1
            if context in self.contexts:
                self.contexts.remove(context)

    async def _answer(self, context: grpc.aio.ServicerContext[Any, Any], handshake: Any) -> None:
        self.handshakes.append(handshake)
        number = next(self.numbers)
        numbered = {"client_number": number} if number else {}
        await context.write(pb.StepResponse(handshake=pb.HandshakeReply(info=self.info(), **numbered)))
        self.contexts.append(context)
        while True:
            request = await context.read()
            if request is grpc.aio.EOF:  # type: ignore[attr-defined]
                return
            reply = self._apply(request.batch)
            await self.gate.wait()
            if self.lose_replies:
                self.lose_replies -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the test cut the stream")
            async with self.writing:
                await context.write(pb.StepResponse(batch=reply))

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        return self.info()

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        return pb.GetStatsResponse(
            boot_id=self.boot_id,
            episodes_open=len(self.by_handle),
            reward_sum=math.fsum(reward for episode in self.by_handle.values() for reward in episode.rewards) + self.reward_error,
            training=pb.TrainingIteration(iteration=3, kl=0.5, learning_rate=0.25),
        )

    def info(self) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(
            protocol_version=PROTOCOL_VERSION,
            boot_id=self.boot_id,
            endpoints=self.endpoints,
            endpoint_loads=[pb.EndpointLoad(address=address, episodes_open=load) for address, load in self.loads.items()],
            observation_space=to_proto(self.observation_space),
            action_space=to_proto(self.action_space),
            max_message_bytes=1 << 20,
            max_rows_per_message=self.max_rows,
            weights_seq_no=4,
            stale=self.stale,
            **self.identity,
        )

    def _disagreement(self, handshake: pb.Handshake) -> HandshakeError | None:
        for name, ours in (("observation_space", self.observation_space), ("action_space", self.action_space)):
            if handshake.HasField(name) and not same(ours, from_proto(getattr(handshake, name))):
                return HandshakeError(f"{name}: the server has {describe(ours)}", field=name)
        return None

    def _apply(self, batch: pb.StepBatch) -> pb.StepReply:
        handles = np.frombuffer(batch.handles, "<u8").copy()
        sequences = np.frombuffer(batch.sequences, "<u4")
        rewards = np.frombuffer(batch.rewards, "<f8")
        observations = from_tensor(batch.observations[0], "observations[0]")
        given = iter(from_tensor(batch.actions[0], "actions[0]").tolist() if batch.actions else ())
        ids = iter(batch.episode_ids)
        infos = {info.row: info.json for info in batch.infos}
        rows = len(handles)
        assert len(sequences) == len(rewards) == len(observations) == len(batch.flags) == rows
        self.message_rows.append(rows)
        actions, codes, errors = np.zeros(rows, np.int64), bytearray(rows), []
        for row in range(rows):
            flags = StepFlag(batch.flags[row])
            name = next(ids) if flags & StepFlag.START else ""
            action = next(given) if flags & StepFlag.ACTION_GIVEN else None
            content = (flags, float(rewards[row]), observations[row].tolist(), action, infos.get(row, ""))
            try:
                episode = self._find(name, int(handles[row]), flags)
                actions[row] = self._step(episode, int(sequences[row]), content)
                handles[row] = episode.handle
            except PolicyServerError as error:
                errors.append(to_row_error(row, error.with_traceback(None)))  # whose frames hold the call
                codes[row] = errors[-1].code
        assert next(ids, None) is None
        assert next(given, None) is None
        return pb.StepReply(
            message_id=batch.message_id,
            handles=handles.tobytes(),
            codes=bytes(codes),
            actions=[to_tensor(actions)],
            action_log_probs=bytes(4 * rows),
            weights_seq_nos=np.full(rows, 5, "<u8").tobytes(),
            errors=errors,
            stale=self.stale,
        )

    def _find(self, name: str, handle: int, flags: StepFlag) -> Served:
        if flags & StepFlag.START:
            assert handle == 0
            if name not in self.episodes:
                refusal = self.refuse(name, 0)
                if refusal is not None:
                    raise refusal
                episode = Served(name, 1000 + len(self.episodes), training_enabled=not flags & StepFlag.TRAINING_DISABLED)
                self.episodes[name] = self.by_handle[episode.handle] = episode
            return self.episodes[name]
        if handle not in self.by_handle:
            raise EpisodeUnknownError(f"no episode has the handle {handle}")
        return self.by_handle[handle]

    def _step(self, episode: Served, sequence: int, content: tuple[Any, ...]) -> int:
        flags, reward, observation, given, info = content
        if sequence == episode.next - 1 and flags & StepFlag.OVERRIDE:
            assert given is not None
            assert (reward, observation) == episode.row[1:3]
            episode.given[sequence] = given
            episode.overridden.add(sequence)
            return int(given)
        if sequence == episode.next - 1:
            if content != episode.row:
                raise SequenceError("another content", reason="SEQUENCE_CONFLICT")
            self.repeated += 1
            return episode.action
        if sequence != episode.next:
            raise SequenceError(f"expected {episode.next}, received {sequence}")
        refusal = self.refuse(episode.id, sequence)
        if refusal is not None:
            raise refusal
        episode.next, episode.row = sequence + 1, content
        episode.rewards.append(reward)
        episode.observations.append(observation)
        if info:
            episode.infos[sequence] = info
        if given is not None:
            episode.given[sequence] = given
        if flags & StepFlag.END:
            episode.end = flags & StepFlag.END
        episode.action = given if given is not None else 0 if flags & StepFlag.END else 7 * sequence % 3
        return episode.action


class ReferenceServer:
    """A Servicer on a loop of its own thread, on a port (or a unix socket, "unix:path") that outlives restarts."""

    def __init__(self, servicer: Servicer | None = None, credentials: grpc.ServerCredentials | None = None, socket: str = "") -> None:
        self.servicer = servicer or Servicer()
        self._socket = socket
        self._credentials = credentials
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="reference-server")
        self._thread.start()
        self.port = 0 if socket else free_ports(1)[0]  # the system would give one of its choice to others while this server is stopped
        self._server: grpc.aio.Server | None = None
        self.start()

    @property
    def address(self) -> str:
        return self._socket or f"127.0.0.1:{self.port}"

    def start(self, servicer: Servicer | None = None) -> None:
        """Serve, as another boot if a servicer is given."""
        self.servicer = servicer or self.servicer
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def stop(self) -> None:
        """Cut all streams and give up the port."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()

    def hold(self) -> None:
        """Withhold replies from now on."""
        self._loop.call_soon_threadsafe(self.servicer.gate.clear)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result()

    def release(self) -> None:
        """Let replies go again."""
        self._loop.call_soon_threadsafe(self.servicer.gate.set)

    def tell(self, endpoints: list[str], **loads: int) -> None:
        """Tell all clients where the runners are, and how busy each is that is named by its place in the list, as in `_1 = 5`."""
        known = [pb.EndpointLoad(address=endpoints[int(place[1:])], episodes_open=load) for place, load in loads.items()]
        message = pb.StepResponse(endpoints=pb.Endpoints(addresses=endpoints, loads=known))

        async def tell() -> None:
            for context in list(self.servicer.contexts):
                async with self.servicer.writing:
                    await context.write(message)

        self.servicer.endpoints = endpoints
        asyncio.run_coroutine_threadsafe(tell(), self._loop).result()

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        gc.collect()  # grpc.aio's own thread ends with the last of its objects, and failed calls leave cycles

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def _start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 900)])
        pb_grpc.add_PolicyServiceServicer_to_server(self.servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), self._server)  # type: ignore[attr-defined]
        add_port = self._server.add_insecure_port
        self.port = self._server.add_secure_port(self.address, self._credentials) if self._credentials else add_port(self.address)
        await self._server.start()

    async def _stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None
        # A call that was cut is a task until it has heard of it. grpc.aio loses what it has for other loops where this one closes before.
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
