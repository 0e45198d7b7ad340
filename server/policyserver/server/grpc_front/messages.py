"""Protobuf messages to rows, and replies back to messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.common.errors import WireError, to_row_error
from policyserver.common.figures import known
from policyserver.common.server_stats import ServerStats
from policyserver.common.spaces import leaves
from policyserver.common.tensors import column, from_tensor, to_tensor
from policyserver.server.episodes.received_rows import PolicyWanted, ReceivedRows, Replies
from policyserver.v1 import policy_service_pb2 as pb
from policyserver.v1 import tensor_pb2

MOST_INFO_BYTES = 256 * 2**10
"""Bytes of one step's info, as JSON in UTF-8."""
_MOST_OF_A_MESSAGE_BYTES = 64 * 2**20  # of all infos of a message, decoded
_VALUE_BYTES = 100  # about what a value takes beside its text: "[[],[],[]]" decodes to twenty times its length
_LITTLE_U64, _LITTLE_F32 = np.dtype("<u8"), np.dtype("<f4")
_U8, _U32, _U64, _F64 = (np.dtype(name) for name in ("u1", "u4", "u8", "f8"))


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """What a message may hold, so that nothing is made of one that claims more."""

    max_rows: int
    """Most rows."""
    observation_leaves: int
    """Leaves of the observation space, one tensor each."""
    action_leaves: int
    """Leaves of the action space; no tensors, where no action is given."""

    @classmethod
    def of(cls, max_rows: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> MessageLimits:
        """Count the leaves of two spaces."""
        return cls(max_rows, len(leaves(observation_space)), len(leaves(action_space)))


def row_count(batch: pb.StepBatch) -> int:
    """Return how many rows a message says it has."""
    return len(batch.handles) // _U64.itemsize


def decode_batch(batch: pb.StepBatch, limits: MessageLimits) -> ReceivedRows:
    """Decode a message's columns as views of its bytes.

    Raises:
        WireError: A column has the wrong length, a tensor is inconsistent, an info is no JSON object, or there are too many rows, tensors,
            ids or infos. Nothing was made of what the message claims to have.
    """
    count = row_count(batch)
    if count > limits.max_rows:
        text = f"handles: expected at most {limits.max_rows} rows (listen.max_rows_per_message), received {count}"
        raise WireError(text, field="handles")
    handles = _column(batch.handles, _U64, count, "handles")
    _check_count("episode_ids", batch.episode_ids, count)
    _check_count("infos", batch.infos, count)
    _check_count("policies", batch.policies, count)
    info_bytes = _check_infos(batch)
    rows = ReceivedRows(
        handles,
        _column(batch.sequences, _U32, count, "sequences"),
        _column(batch.flags, _U8, count, "flags"),
        _column(batch.rewards, _F64, count, "rewards"),
        decode_tensors(batch.observations, limits.observation_leaves if count or batch.observations else 0, "observations"),
        decode_tensors(batch.actions, limits.action_leaves if batch.actions else 0, "actions"),
        list(batch.episode_ids),
        {info.row: decode_info(info.json, f"infos[{i}].json") for i, info in enumerate(batch.infos) if _inside(info.row, count)},
        info_bytes=info_bytes,
        wants=[wanted_policy(policy) for policy in batch.policies],
    )
    if len(rows.infos) < len(batch.infos):
        raise WireError("infos: expected at most one for each row, received two for one of them", field="infos")
    return rows


def wanted_policy(policy: pb.EpisodePolicy) -> PolicyWanted:
    """Decode what an episode wants."""
    return PolicyWanted(policy.name, policy.greedy)


def decode_tensors(tensors: Sequence[tensor_pb2.Tensor], leaf_count: int, field: str) -> list[npt.NDArray[Any]]:
    """Decode the tensors of a space, one for each leaf.

    Raises:
        WireError: There are more or less, or one is inconsistent.
    """
    if len(tensors) != leaf_count:
        raise WireError(f"{field}: expected {leaf_count} tensors, received {len(tensors)}", field=field)
    return [from_tensor(tensor, f"{field}[{index}]") for index, tensor in enumerate(tensors)]


def decode_info(text: str, field: str) -> dict[str, Any]:
    """Decode the info of one step.

    Raises:
        WireError: It is no JSON object.
    """
    try:
        info = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"{field}: expected a JSON object, received {text[:80]!r} ({error})", field=field) from error
    if not isinstance(info, dict):
        raise WireError(f"{field}: expected a JSON object, received {text[:80]!r}", field=field)
    return info


def check_info(text: str, field: str) -> int:
    """Return about how many bytes an info takes when it is decoded.

    Raises:
        WireError: It is too long.
    """
    if len(text) > MOST_INFO_BYTES // 4 and (size := len(text.encode())) > MOST_INFO_BYTES:
        raise WireError(f"{field}: expected a JSON object of at most {MOST_INFO_BYTES} bytes, received {size}", field=field)
    return len(text) + _VALUE_BYTES * (1 + text.count(",") + text.count("[") + text.count("{"))


def _check_infos(batch: pb.StepBatch) -> int:
    """Return about how many bytes the infos of a message take when they are decoded.

    Raises:
        WireError: One is too long, or all together.
    """
    if not batch.infos:
        return 0
    total = sum([check_info(info.json, f"infos[{index}].json") for index, info in enumerate(batch.infos)])
    if total > _MOST_OF_A_MESSAGE_BYTES:
        text = f"infos: expected at most about {_MOST_OF_A_MESSAGE_BYTES} bytes of one message when they are decoded, received {total}"
        raise WireError(f"{text}; send fewer rows in a message", field="infos")
    return total


def encode_replies(message_id: int, replies: Replies, errors: list[pb.RowError] | None = None) -> pb.StepResponse:
    """Encode the replies to one message; its refusals too, unless they are already."""
    if replies.refusal is not None:
        return encode_refusal(message_id, replies.refusal)
    if errors is None:
        errors = [to_row_error(row, error) for row, error in sorted(replies.refusals.items())]
    codes = np.zeros(len(replies.handles), _U8)
    for error in errors:
        codes[error.row] = error.code
    return pb.StepResponse(
        batch=pb.StepReply(
            message_id=message_id,
            handles=_bytes(replies.handles, _LITTLE_U64),
            codes=codes.tobytes(),
            actions=[to_tensor(leaf) for leaf in replies.actions],
            action_log_probs=_bytes(replies.log_probs, _LITTLE_F32),
            weights_seq_nos=_bytes(replies.weights_seq_nos, _LITTLE_U64),
            errors=errors,
            stale=replies.is_stale,
        )
    )


def encode_refusal(message_id: int, error: BaseException) -> pb.StepResponse:
    """Encode the refusal of a message as a whole: one error, however many rows it claims to have."""
    return pb.StepResponse(batch=pb.StepReply(message_id=message_id, refusal=to_row_error(0, error)))


def encode_stats(stats: ServerStats) -> pb.GetStatsResponse:
    """Encode how serving and learning go."""
    training = None if stats.training is None else pb.TrainingIteration(**known(stats.training))
    policies = [pb.PolicyFigures(**known(policy)) for policy in stats.policies]
    return pb.GetStatsResponse(**known(stats), training=training, policies=policies)


def _column(data: bytes, dtype: np.dtype[Any], count: int, field: str) -> npt.NDArray[Any]:
    if len(data) != count * dtype.itemsize:
        raise WireError(f"{field}: expected {count * dtype.itemsize} bytes for {count} rows, received {len(data)}", field=field)
    return column(data, dtype)


def _check_count(field: str, items: Sequence[Any], rows: int) -> None:
    if len(items) > rows:
        raise WireError(f"{field}: expected at most one for each of {rows} rows, received {len(items)}", field=field)


def _inside(row: int, count: int) -> bool:
    if row >= count:
        raise WireError(f"infos: expected rows below {count}, received {row}", field="infos")
    return True


def _bytes(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    return array.astype(dtype, copy=False).tobytes()
