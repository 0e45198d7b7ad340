"""Protobuf messages to rows, and replies back to messages."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.errors import WireError, to_row_error
from policyserver.flags import StepFlag
from policyserver.tensors import column, from_tensor, to_tensor
from policyserver.v1 import policy_service_pb2 as pb

from ..episodes.rows import Replies, Rows

_LITTLE_U64, _LITTLE_F32 = np.dtype("<u8"), np.dtype("<f4")
_U8, _U32, _U64, _F64 = (np.dtype(name) for name in ("u1", "u4", "u8", "f8"))


def row_count(batch: pb.StepBatch) -> int:
    """Return how many rows a message says it has."""
    return len(batch.handles) // _U64.itemsize


def decode_batch(batch: pb.StepBatch, max_rows: int) -> Rows:
    """Decode a message's columns as views of its bytes.

    Raises:
        WireError: A column has the wrong length, a tensor is inconsistent, an info is no JSON object, or there are too many rows.
    """
    count = row_count(batch)
    if count > max_rows:
        raise WireError(f"handles: expected at most {max_rows} rows (listen.max_rows_per_message), received {count}", field="handles")
    handles = _column(batch.handles, _U64, count, "handles")
    flags = _column(batch.flags, _U8, count, "flags")
    return Rows(
        handles,
        _column(batch.sequences, _U32, count, "sequences"),
        flags,
        _column(batch.rewards, _F64, count, "rewards"),
        [_leading(from_tensor(tensor, f"observations[{i}]"), f"observations[{i}]") for i, tensor in enumerate(batch.observations)],
        [_leading(from_tensor(tensor, f"actions[{i}]"), f"actions[{i}]") for i, tensor in enumerate(batch.actions)],
        list(batch.episode_ids),
        {info.row: decode_info(info.json, f"infos[{i}].json") for i, info in enumerate(batch.infos) if _inside(info.row, count)},
    )


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


def encode_replies(message_id: int, replies: Replies, errors: list[pb.RowError] | None = None) -> pb.StepResponse:
    """Encode the replies to one message; its refusals too, unless they are already."""
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
        )
    )


def encode_refusal(message_id: int, count: int, error: BaseException, code: int) -> pb.StepResponse:
    """Encode the refusal of all rows of a message that could not be read."""
    return pb.StepResponse(
        batch=pb.StepReply(
            message_id=message_id,
            handles=bytes(count * _U64.itemsize),
            codes=bytes([code]) * count,
            action_log_probs=bytes(count * 4),
            weights_seq_nos=bytes(count * _U64.itemsize),
            errors=[to_row_error(row, error) for row in range(count)],
        )
    )


def one_row(handle: int, sequence: int, flags: StepFlag, reward: float, observation: list[Any], action: list[Any]) -> Rows:
    """Make the rows of a unary call."""
    return Rows(
        np.array([handle], _U64),
        np.array([sequence], _U32),
        np.array([flags], _U8),
        np.array([reward], _F64),
        [leaf[None] for leaf in observation],
        [leaf[None] for leaf in action],
    )


def _column(data: bytes, dtype: np.dtype[Any], count: int, field: str) -> npt.NDArray[Any]:
    if len(data) != count * dtype.itemsize:
        raise WireError(f"{field}: expected {count * dtype.itemsize} bytes for {count} rows, received {len(data)}", field=field)
    return column(data, dtype)


def _leading(array: npt.NDArray[Any], field: str) -> npt.NDArray[Any]:
    if array.ndim == 0:
        raise WireError(f"{field}: expected a leading axis, one entry per row, received a scalar", field=field)
    return array


def _inside(row: int, count: int) -> bool:
    if row >= count:
        raise WireError(f"infos: expected rows below {count}, received {row}", field="infos")
    return True


def _bytes(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    return array.astype(dtype, copy=False).tobytes()
