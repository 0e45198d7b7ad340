"""Values of a space <-> bytes, rows -> StepBatch, StepReply -> columns, and the server's reports -> dataclasses."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, TypeVar, cast

import gymnasium as gym
import numpy as np

from policyserver.client.config import ClientConfig
from policyserver.client.rows import NO_INFO, ROW_OVERHEAD_BYTES, ClientEpisode, OutgoingRows
from policyserver.client.server_info import EndpointLoad, ServerInfo
from policyserver.common.errors import HandshakeError, InvalidInputError, PolicyServerError, WireError, from_row_error
from policyserver.common.figures import figures
from policyserver.common.flags import PROTOCOL_VERSION, StepFlag
from policyserver.common.server_stats import PolicyFigures, ServerStats, TrainingIteration
from policyserver.common.spaces import (
    Array,
    Leaf,
    argument_names,
    describe,
    flatten,
    flatten_rows,
    from_proto,
    leaves,
    same,
    to_proto,
    unflatten,
    unflatten_batch,
)
from policyserver.common.tensors import column, dtype_to_proto, from_tensor
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import tensor_pb2

T = TypeVar("T")

_SMALL_BYTES = 512
"""Size up to which Python adds an observation up faster than numpy multiplies it with itself. NumPy also releases Python's lock, even for
so little work, which wakes a thread that waits for the lock: with many callers that is the most expensive part of a step."""


class SpaceCodec:
    """Turns values of one space into bytes and back. Immutable, so that any thread may use it."""

    def __init__(self, space: gym.Space[Any], name: str) -> None:
        """Prepare a space.

        Args:
            space: the space both sides agreed on.
            name: "observation" or "action", for the errors.
        """
        self.space = space
        self.leaves = tuple(leaves(space, name))
        self.row_bytes = sum(leaf.dtype.itemsize * int(np.prod(leaf.shape)) for leaf in self.leaves)
        self._name = name
        self._wire_dtypes = tuple(leaf.dtype.newbyteorder("<") for leaf in self.leaves)
        self._shape = space.shape
        self._is_plain = isinstance(space, gym.spaces.Box) and self.leaves[0].dtype.kind == "f"
        self._is_small = self.row_bytes <= _SMALL_BYTES
        self._is_discrete = isinstance(space, gym.spaces.Discrete)

    def encode(self, value: Any) -> tuple[bytes, ...]:
        """Encode one value: the bytes of each leaf.

        Raises:
            InvalidInputError: wrong structure, shape or dtype, or not finite.
        """
        fits = self._is_plain and type(value) is np.ndarray and value.dtype == self._wire_dtypes[0] and value.shape == self._shape
        if fits and math.isfinite(sum(value.ravel().tolist()) if self._is_small else np.vdot(value, value)):  # then all elements are
            return (value.tobytes(),)
        return self._bytes(flatten(self.space, value, self._name, self.leaves))

    def encode_batch(self, values: Any, rows: int) -> tuple[tuple[bytes, ...], dict[int, InvalidInputError]]:
        """Encode a batch of exactly `rows` values.

        Returns:
            The bytes of each leaf's column, and what is wrong with those rows that can't travel, such as one that is not finite.

        Raises:
            InvalidInputError: wrong structure, shape or dtype, or another number of rows.
        """
        arrays, errors = flatten_rows(self.space, values, self._name, rows, self.leaves)
        return self._bytes(arrays), errors

    def decode(self, columns: Sequence[Array], row: int = 0) -> Any:
        """Decode one row of each leaf's column as one value that owns its memory."""
        if self._is_discrete:
            return columns[0][row]
        return unflatten(self.space, [np.array(column[row]) for column in columns])

    def decode_batch(self, columns: list[Array]) -> Any:
        """Decode each leaf's column as a batch that owns its memory."""
        return unflatten_batch(self.space, [column.copy() for column in columns])

    def zeros(self, rows: int) -> list[Array]:
        """Make columns of zeros."""
        return [np.zeros((rows, *leaf.shape), leaf.dtype) for leaf in self.leaves]

    def _bytes(self, arrays: list[Array]) -> tuple[bytes, ...]:
        return tuple(array.astype(dtype, copy=False).tobytes() for array, dtype in zip(arrays, self._wire_dtypes, strict=True))


_START = int(StepFlag.START)
_WITHOUT_WAIT = bytes(flags | int(StepFlag.NO_WAIT) for flags in range(256))
_UINT64 = np.dtype(np.uint64)
_MESSAGE_OVERHEAD_BYTES = 4096
_UNKNOWN = b"\2"  # the google.rpc.Code of rows whose message was refused; the error says more


@dataclass(frozen=True, slots=True)
class NegotiatedSession:
    """What the handshake settled."""

    info: ServerInfo
    """The server's side."""
    observation: SpaceCodec
    """Observations <-> bytes."""
    action: SpaceCodec
    """Actions <-> bytes."""
    max_rows: int
    """Most rows in one message."""
    max_bytes: int
    """Most bytes that the rows of one message may take."""
    row_bytes: int
    """Most bytes that a row takes beside its info."""
    arguments: Mapping[str, str]
    """What callers know the columns of a message as."""
    client_number: int
    """What no other client of the server has."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answers to the rows of one message, as columns."""

    handles: list[int]
    """One per row: the episodes' handles."""
    codes: bytes
    """One per row; 0 where the row was applied."""
    actions: list[Array]
    """One column of n values per leaf of the action space."""
    errors: dict[int, PolicyServerError]
    """Why rows were refused."""
    weights_seq_nos: Array
    """One per row: the policy version that answered, uint64."""
    weights_seq_no: int
    """Newest of them."""
    is_stale: bool = False
    """Whether the serving runner had not heard of its daemon for some seconds."""


def handshake(
    client_id: str,
    observation_space: gym.Space[Any] | None,
    action_space: gym.Space[Any] | None,
    client_number: int | None,
    records_in: Sequence[str] = (),
) -> pb.StepRequest:
    """Encode what this client is and expects."""
    return pb.StepRequest(
        handshake=pb.Handshake(
            protocol_version=PROTOCOL_VERSION,
            client_id=client_id,
            observation_space=None if observation_space is None else to_proto(observation_space),
            action_space=None if action_space is None else to_proto(action_space),
            client_number=client_number,
            records_in=records_in,
            takes_endpoints=True,
        )
    )


def agree(
    response: pb.StepResponse,
    observation_space: gym.Space[Any] | None,
    action_space: gym.Space[Any] | None,
    config: ClientConfig,
) -> NegotiatedSession:
    """Decode the server's side of the handshake and check it against this one.

    Raises:
        WireError: the first response is no handshake, or its spaces are malformed.
        HandshakeError: the versions, the spaces or the server's identity differ, or no observation fits into a message.
    """
    if response.WhichOneof("kind") != "handshake":
        raise WireError(f"kind: expected the handshake first, received {response.WhichOneof('kind')}", field="kind")
    info = to_info(response.handshake.info)
    if info.protocol_version != PROTOCOL_VERSION:
        raise HandshakeError(f"protocol_version: this client speaks {PROTOCOL_VERSION}, the server {info.protocol_version}")
    for name, ours, theirs in (
        ("observation_space", observation_space, info.observation_space),
        ("action_space", action_space, info.action_space),
    ):
        if ours is not None and not same(ours, theirs):
            raise HandshakeError(f"{name}: this client has {describe(ours)}, the server {describe(theirs)}", field=name)
    _check_identity(info, config)
    max_message_bytes = config.max_message_bytes
    observation, action = SpaceCodec(info.observation_space, "observation"), SpaceCodec(info.action_space, "action")
    max_bytes = min(max_message_bytes, info.max_message_bytes or max_message_bytes) - _MESSAGE_OVERHEAD_BYTES
    needed = observation.row_bytes + action.row_bytes + ROW_OVERHEAD_BYTES
    if needed > max_bytes:
        raise HandshakeError(
            f"max_message_bytes: a step takes up to {needed + _MESSAGE_OVERHEAD_BYTES} bytes, but this client may send "
            f"{max_message_bytes} and the server reads {info.max_message_bytes}; raise the lower limit",
            field="max_message_bytes",
        )
    max_rows = min(config.max_rows_per_message, info.max_rows_per_message or config.max_rows_per_message)
    arguments = argument_names(info.observation_space, info.action_space)
    return NegotiatedSession(info, observation, action, max_rows, max_bytes, needed, arguments, response.handshake.client_number)


def _check_identity(info: ServerInfo, config: ClientConfig) -> None:
    """Refuse another server than the expected one."""
    if config.expected_instance_id not in (None, info.instance_id):
        raise HandshakeError(
            f"instance_id: this client expects the server {config.expected_instance_id!r}, at this address is "
            f"{info.instance_id or 'one without an id'!r}; another server has the address",
            field="instance_id",
        )
    if info.run and config.expected_run not in (None, info.run):
        raise HandshakeError(
            f"run: this client belongs to the run {config.expected_run!r}, the server records {info.run!r}; name the same run on both "
            "sides, or the address of the server that is meant",
            field="run",
        )


def step_batch(message_id: int, parts: Sequence[OutgoingRows], session: NegotiatedSession, *, waits: bool = True) -> pb.StepRequest:
    """Put rows together into one message, in order; `waits` says whether their callers can wait for the learner."""
    flags = bytes(chain.from_iterable([part.flags for part in parts]))
    if not waits:
        flags = flags.translate(_WITHOUT_WAIT)
    rows = len(flags)
    given = [part.actions for part in parts if part.actions]
    begins = any([flag & _START for flag in flags])  # noqa: C419 - a list is twice as fast as a generator
    begun = _begun(parts) if begins else ()
    return pb.StepRequest(
        batch=pb.StepBatch(
            message_id=message_id,
            handles=struct.pack(f"<{rows}Q", *[episode.handle for part in parts for episode in part.episodes]),
            sequences=struct.pack(f"<{rows}I", *[number for part in parts for number in part.sequences]),
            flags=flags,
            rewards=struct.pack(f"<{rows}d", *[reward for part in parts for reward in part.rewards]),
            observations=_tensors(session.observation.leaves, [part.observations for part in parts], rows),
            actions=_tensors(session.action.leaves, given, sum(len(part) for part in parts if part.actions)) if given else (),
            episode_ids=[episode.id for episode in begun],
            policies=_policies(begun),
            infos=_infos(parts),
        )
    )


def to_reply(message: pb.StepReply, rows: int, session: NegotiatedSession) -> Reply:
    """Decode and check the answer to a message of so many rows.

    Raises:
        WireError: a column has the wrong length.
    """
    action_leaves = session.action.leaves
    if message.HasField("refusal"):
        errors = {row: _to_error(message.refusal, session) for row in range(rows)}
        return Reply([0] * rows, _UNKNOWN * rows, session.action.zeros(rows), errors, np.zeros(rows, _UINT64), weights_seq_no=0)
    if len(message.handles) != 8 * rows or len(message.codes) != rows or len(message.weights_seq_nos) != 8 * rows:
        raise WireError(f"handles: expected {rows} rows, received {len(message.handles) / 8}", field="handles")
    actions = [from_tensor(tensor, f"actions[{index}]") for index, tensor in enumerate(message.actions)]
    shapes = [(array.dtype, array.shape) for array in actions]
    expected = [(leaf.dtype, (rows, *leaf.shape)) for leaf in action_leaves]
    if shapes != expected:
        raise WireError(f"actions: expected {expected}, received {shapes}", field="actions")
    versions = column(message.weights_seq_nos, _UINT64)
    return Reply(
        handles=column(message.handles, _UINT64).tolist(),
        codes=message.codes,
        actions=actions,
        errors={error.row: _to_error(error, session) for error in message.errors},
        weights_seq_nos=versions,
        weights_seq_no=int(versions.max(initial=0)),
        is_stale=message.stale,
    )


def _to_error(error: pb.RowError, session: NegotiatedSession) -> PolicyServerError:
    """Decode why a row was refused, and name the argument to blame instead of the message's field."""
    decoded = from_row_error(error)
    decoded.field = session.arguments.get(decoded.field, decoded.field)
    return decoded


def to_info(message: pb.GetServerInfoResponse) -> ServerInfo:
    """Decode what the server says of itself.

    Raises:
        WireError: malformed spaces.
    """
    decoded = {name: from_proto(getattr(message, name), name) for name in ("observation_space", "action_space")}
    return to_dataclass(ServerInfo, message, **decoded, endpoints=tuple(message.endpoints), endpoint_loads=to_loads(message.endpoint_loads))


def to_loads(loads: Iterable[pb.EndpointLoad]) -> tuple[EndpointLoad, ...]:
    """Decode how busy the serving processes are."""
    return tuple(EndpointLoad(load.address, load.episodes_open) for load in loads)


def to_dataclass(cls: type[T], message: Any, **decoded: Any) -> T:
    """Decode a message into a dataclass with the same fields, of which some are `decoded` already."""
    names = [field.name for field in fields(cast(Any, cls)) if field.name not in decoded]
    return cls(**{name: getattr(message, name) for name in names}, **decoded)


def to_stats(message: pb.GetStatsResponse) -> ServerStats:
    """Decode the server's counters."""
    training = TrainingIteration(**_figures(message.training, TrainingIteration)) if message.HasField("training") else None
    policies = tuple(PolicyFigures(**_figures(policy, PolicyFigures)) for policy in message.policies)
    return ServerStats(**_figures(message, ServerStats), training=training, policies=policies)


def _figures(message: pb.GetStatsResponse | pb.TrainingIteration | pb.PolicyFigures, cls: type[Any]) -> dict[str, Any]:
    """Read the declared figures of a message; those that it leaves unset are left out."""
    declared = message.DESCRIPTOR.fields_by_name
    return {name: getattr(message, name) for name in figures(cls) if not declared[name].has_presence or message.HasField(name)}


def _tensors(leaves: Sequence[Leaf], parts: Sequence[tuple[bytes, ...]], rows: int) -> list[tensor_pb2.Tensor]:
    """Put the columns of each leaf together."""
    return [
        tensor_pb2.Tensor(dtype=dtype_to_proto(leaf.dtype), shape=(rows, *leaf.shape), data=b"".join([part[index] for part in parts]))  # type: ignore[arg-type]
        for index, leaf in enumerate(leaves)
    ]


def _begun(parts: Sequence[OutgoingRows]) -> list[ClientEpisode]:
    return [episode for part in parts for episode, flag in zip(part.episodes, part.flags, strict=True) if flag & _START]


def _policies(begun: Sequence[ClientEpisode]) -> list[pb.EpisodePolicy]:
    """Say what episodes want that begin; nothing if no policy is named and all explore."""
    if not any([episode.policy or episode.greedy for episode in begun]):  # noqa: C419 - a list is twice as fast as a generator
        return []
    return [pb.EpisodePolicy(name=episode.policy, greedy=episode.greedy) for episode in begun]


def _infos(parts: Sequence[OutgoingRows]) -> list[pb.RowInfo]:
    found: list[pb.RowInfo] = []
    first = 0
    for part in parts:
        if part.infos is not NO_INFO and any(part.infos):
            found.extend(pb.RowInfo(row=first + row, json=info) for row, info in enumerate(part.infos) if info)
        first += len(part.episodes)
    return found
