"""The gRPC way in: decodes messages, hands them to the episode core, encodes its replies. No episode logic."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NoReturn, TypeVar, cast

import grpc
import gymnasium as gym

from policyserver.common import spaces
from policyserver.common.errors import HandshakeError, PolicyServerError, ServerOverloadedError, WireError, reason_and_code_of, to_metadata
from policyserver.common.flags import PROTOCOL_VERSION
from policyserver.common.server_stats import ServerStats
from policyserver.server.config.serving_config import ServingConfig
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.received_rows import Replies
from policyserver.server.episodes.row_checks import id_error
from policyserver.server.episodes.shares import connection_of
from policyserver.server.grpc_front import messages as wire
from policyserver.server.grpc_front.client_numbers import ClientNumbers
from policyserver.server.grpc_front.endpoints import Endpoints
from policyserver.server.grpc_front.stream_answers import StreamAnswers
from policyserver.server.grpc_front.unary_episodes import UnaryEpisodes
from policyserver.server.grpc_front.unreadable import readable
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import policy_service_pb2_grpc as pb_grpc

logger = logging.getLogger(__name__)

T = TypeVar("T")
SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["PolicyService"].full_name
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
_TURNS_BEFORE_READING = 2
"""Turns of the loop that reading lets go first: in one the rows are decided, in the next their answer leaves, and the client has it sooner
than the server has the next message, which then is the larger for it."""
_VERSION = importlib.metadata.version("rllib-policy-server")
_ROOM = pb.StepResponse(room=pb.Room())
_HANDSHAKE_TIMEOUT_S = 20.0
_MOST_PLACES = 16  # where one client records
_STATUS = {code.value[0]: code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK}  # that an aborted call has
_LAST_ANSWERS_S = 0.5  # for those that a stream still has to write when it is ended


class PolicyServicer(pb_grpc.PolicyServiceServicer):
    """Serve the episode core over gRPC. All its methods run on the core's loop."""

    def __init__(
        self,
        core: EpisodeCore,
        boot_id: str,
        both_spaces: tuple[gym.Space[Any], gym.Space[Any]],
        config: ServingConfig,
        endpoints: Endpoints,
        stats: Callable[[], ServerStats],
        numbers: ClientNumbers,
    ) -> None:
        """Serve a core. `endpoints` tells of all serving processes; `stats` returns how serving and learning go."""
        self._core = core
        self._boot_id = boot_id
        self._spaces = dict(zip(("observation_space", "action_space"), both_spaces, strict=True))
        self._config = config
        self._endpoints = endpoints
        self._stats = stats
        self._limits = wire.MessageLimits.of(config.listen.max_rows_per_message, *both_spaces)
        self._unary = UnaryEpisodes(core, self._limits, config.episodes.unary_idle_timeout_s)
        self._numbers = numbers
        self._streams: set[asyncio.Task[Any]] = set()
        self._ending: PolicyServerError | None = None
        """What each stream ends with, once it is to."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have a gRPC server answer the calls of the service by this."""
        pb_grpc.add_PolicyServiceServicer_to_server(self, server)

    async def end_streams(self, error: PolicyServerError) -> None:
        """End all streams with an error, once what is answered was written."""
        self._ending = error
        for stream in self._streams:
            stream.cancel()
        if self._streams:
            await asyncio.wait(self._streams, timeout=2 * _LAST_ANSWERS_S)

    # The stream ----------------------------------------------------------------------------------------------------------------------

    async def Step(self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Answer the steps of one client until its stream ends."""
        if len(self._streams) >= (most := self._config.listen.max_clients):
            self._core.statistics.clients_refused += 1
            text = f"expected at most {most} clients at once (listen.max_clients); try again later"
            self._core.statistics.calls["Step", "RESOURCE_EXHAUSTED"] += 1
            await _abort(context, ServerOverloadedError(text))
        stream = cast("asyncio.Task[Any]", asyncio.current_task())
        self._streams.add(stream)
        status = "CANCELLED"
        try:
            await self._converse(context, stream)
            status = "OK"
        except asyncio.CancelledError:
            if self._ending is not None and not context.done():
                await _abort(context, self._ending)
            raise
        finally:
            self._streams.discard(stream)
            self._core.statistics.calls["Step", _STATUS.get(cast("Any", context.code()), status)] += 1

    async def _converse(self, context: grpc.aio.ServicerContext[Any, Any], stream: asyncio.Task[Any]) -> None:
        """Shake hands, then answer."""
        try:
            first = await asyncio.wait_for(readable(context), _HANDSHAKE_TIMEOUT_S)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"expected a Handshake within {_HANDSHAKE_TIMEOUT_S:g} s")
        if first is _EOF:
            return
        try:
            self._check_handshake(first)
        except PolicyServerError as error:
            await _abort(context, error)
        client_id = first.handshake.client_id
        records_in = tuple(first.handshake.records_in)
        client = self._core.connect(f"stream:{client_id}", connection_of(context.peer(), client_id), records_in)
        self._core.statistics.clients_connected += 1
        answers = StreamAnswers(context, self._config.listen.max_unanswered_bytes)
        writer = asyncio.create_task(answers.write())
        writer.add_done_callback(_ending(stream, context))

        def say_room() -> None:
            answers.say(_ROOM)

        def answer(send: Callable[[Replies], None], replies: Replies) -> None:
            send(replies)
            if replies.waiting:
                self._core.room.when_open(say_room)

        try:
            claimed = first.handshake.client_number if first.handshake.HasField("client_number") else None
            turn = self._endpoints.turn()
            welcome = pb.HandshakeReply(info=self._info(turn), client_number=self._numbers.number(claimed))
            await context.write(pb.StepResponse(handshake=welcome))
            if first.handshake.takes_endpoints:
                self._endpoints.follow(answers.tell, turn, welcome.info.endpoints)
            while True:
                if answers.is_full:
                    self._core.statistics.messages_withheld += 1
                    await answers.room()
                request = await readable(context)
                if request is _EOF or writer.done():
                    break
                batch = request.batch
                try:
                    if not request.HasField("batch"):
                        raise WireError(
                            f"kind: expected a batch after the handshake, received {request.WhichOneof('kind') or 'nothing'}", field="kind"
                        )
                    rows = wire.decode_batch(batch, self._limits)
                except WireError as error:
                    self._core.statistics.rows_refused += wire.row_count(batch)
                    answers.refuse(wire.encode_refusal(batch.message_id, error))
                    continue
                self._core.take(rows, client, partial(answer, answers.expect(batch.message_id, rows.size_bytes)))
                for _ in range(_TURNS_BEFORE_READING):
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._ending is not None:
                answers.end()
                await asyncio.wait([writer], timeout=_LAST_ANSWERS_S)
                raise
            # `_ending` cancelled the reading, and gRPC would leave the client without a status.
            if writer.done() and not writer.cancelled() and not context.done():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "an answer could not be written; connect again and repeat the rows")
            raise
        finally:
            self._core.statistics.clients_connected -= 1
            self._core.room.forget(say_room)
            self._endpoints.forget(answers.tell)
            self._core.disconnect(client)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _check_handshake(self, first: pb.StepRequest) -> None:
        if not first.HasField("handshake"):
            raise HandshakeError("expected a Handshake as the stream's first message, received a batch", field="kind")
        handshake = first.handshake
        if handshake.protocol_version != PROTOCOL_VERSION:
            raise HandshakeError(
                f"protocol versions differ: the server speaks {PROTOCOL_VERSION}, the client {handshake.protocol_version}; "
                "install the same release on both sides",
                field="protocol_version",
            )
        if not handshake.client_id:
            raise HandshakeError("client_id: expected a name, received none", field="client_id")
        if too_long := id_error("client_id", handshake.client_id):
            raise HandshakeError(str(too_long), field="client_id")
        if len(handshake.records_in) > _MOST_PLACES:
            text = f"records_in: expected at most {_MOST_PLACES} places, received {len(handshake.records_in)}"
            raise HandshakeError(text, field="records_in")
        for place in handshake.records_in:
            if too_long := id_error("records_in", place):
                raise HandshakeError(str(too_long), field="records_in")
        for name, ours in self._spaces.items():
            if not handshake.HasField(name):
                continue
            try:
                theirs = spaces.from_proto(getattr(handshake, name), name)
            except WireError as error:
                raise HandshakeError(str(error), field=name) from error
            if not spaces.same(ours, theirs):
                raise HandshakeError(
                    f"{name.replace('_', ' ')}s differ: the server has {spaces.describe(ours)}, the client {spaces.describe(theirs)}",
                    field=name,
                )

    # Facts ---------------------------------------------------------------------------------------------------------------------------

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Any) -> pb.GetServerInfoResponse:
        """Say what this server is."""
        self._core.statistics.calls["GetServerInfo", "OK"] += 1
        return self._info()

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        """Say how serving and learning go."""
        self._core.statistics.calls["GetStats", "OK"] += 1
        return wire.encode_stats(self._stats())

    def _info(self, turn: int = 0) -> pb.GetServerInfoResponse:
        """Say what this server is. Each turn lists another endpoint first: where a client begins that knows no better."""
        config, endpoints = self._config, self._endpoints
        return pb.GetServerInfoResponse(
            protocol_version=PROTOCOL_VERSION,
            server_version=_VERSION,
            boot_id=self._boot_id,
            observation_space=spaces.to_proto(self._spaces["observation_space"]),
            action_space=spaces.to_proto(self._spaces["action_space"]),
            endpoints=endpoints.addresses(turn),
            endpoint_loads=endpoints.loads(),
            max_message_bytes=config.listen.max_message_bytes,
            max_rows_per_message=config.listen.max_rows_per_message,
            episode_idle_timeout_s=config.episodes.episode_idle_timeout_s,
            weights_seq_no=self._core.snapshot().weights_seq_no,
            run=config.run,
            instance_id=config.instance_id,
            stop_timeout_s=config.stop_timeout_s,
            stale=self._core.absence.is_silent,
        )

    # Unary calls ---------------------------------------------------------------------------------------------------------------------

    async def StartEpisode(self, request: pb.StartEpisodeRequest, context: Any) -> pb.StartEpisodeResponse:
        """Start an episode of a unary caller."""
        return await self._answered("StartEpisode", context, self._unary.start(request, context.peer()))

    async def GetAction(self, request: pb.GetActionRequest, context: Any) -> pb.GetActionResponse:
        """Return the policy's action for an observation."""
        return await self._answered("GetAction", context, self._unary.get_action(request))

    async def LogAction(self, request: pb.LogActionRequest, context: Any) -> pb.LogActionResponse:
        """Record an action that the caller chose."""
        return await self._answered("LogAction", context, self._unary.log_action(request))

    async def LogReturns(self, request: pb.LogReturnsRequest, context: Any) -> pb.LogReturnsResponse:
        """Add to the reward of the newest action."""
        return await self._answered("LogReturns", context, self._unary.log_returns(request))

    async def EndEpisode(self, request: pb.EndEpisodeRequest, context: Any) -> pb.EndEpisodeResponse:
        """End an episode with its last observation."""
        return await self._answered("EndEpisode", context, self._unary.end(request))

    async def _answered(self, method: str, context: grpc.aio.ServicerContext[Any, Any], call: Awaitable[T]) -> T:
        """Await a unary call, turn its errors into statuses, and count it."""
        calls = self._core.statistics.calls
        try:
            answer = await call
        except (PolicyServerError, WireError) as error:
            calls[method, reason_and_code_of(error)[1].name] += 1
            await _abort(context, error)
        except Exception:
            calls[method, "INTERNAL"] += 1
            incident = secrets.token_hex(4)
            logger.exception("incident %s: a unary call failed", incident)
            await context.abort(grpc.StatusCode.INTERNAL, f"the server failed to answer; incident {incident} in its log")
        calls[method, "OK"] += 1
        return answer


def _ending(reader: asyncio.Task[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Callable[[asyncio.Task[None]], None]:
    """Make what ends a stream whose answers can't be written any more: its client connects again and repeats what was unanswered."""

    def end(writer: asyncio.Task[None]) -> None:
        if writer.cancelled() or (error := writer.exception()) is None or context.done():
            return  # the stream is over already, or the client is gone
        logger.error("a stream ends, for its answers could not be written", exc_info=error)
        reader.cancel()

    return end


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    await context.abort(reason_and_code_of(error)[1], str(error), to_metadata(error))
