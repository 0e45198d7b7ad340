"""Checks of whole columns: which rows break the rules of the protocol. `common.acting.leaf_checks` has those of the spaces."""

from __future__ import annotations

import math

import numpy as np

from policyserver.common.errors import InvalidInputError
from policyserver.common.flags import StepFlag, describe_flags
from policyserver.common.rewards import REWARD_MAX
from policyserver.common.spaces import Array
from policyserver.server.episodes.masks import all_true, any_true

MOST_ID_BYTES = 256
"""Bytes of an episode's or a client's id in UTF-8: the server keeps ids, of finished episodes too."""
_WIDE_BYTES = 256  # from here on Python's own hash of a row is the faster one
_FACTORS = np.random.default_rng(0).integers(0, 2**63, _WIDE_BYTES // 4, np.uint64) * np.uint64(2) + np.uint64(1)
_START, _GIVEN, _OVERRIDE = int(StepFlag.START), int(StepFlag.ACTION_GIVEN), int(StepFlag.OVERRIDE)
_END, _DISABLED = int(StepFlag.END), int(StepFlag.TRAINING_DISABLED)
_TERMINATED = int(StepFlag.TERMINATED)
_NO_WAIT = int(StepFlag.NO_WAIT)
_ALL = _START | _GIVEN | _OVERRIDE | _END | _DISABLED | _NO_WAIT


def bad_headers(flags: Array, sequences: Array, rewards: Array) -> dict[int, InvalidInputError]:
    """Find rows whose flags contradict each other, whose reward is no float32, or which start anywhere but at the beginning."""
    sound = np.abs(rewards) <= REWARD_MAX
    if all_true(sound) and not any_true(flags & ~np.uint8(_TERMINATED | _NO_WAIT) != 0):
        return {}  # nothing but plain steps and ends, as most batches are
    start, given, end = flags & _START != 0, flags & _GIVEN != 0, flags & _END
    contradictory = (end == _END) | (given & (end != 0)) | ((flags & _OVERRIDE != 0) & ~given) | (flags & ~np.uint8(_ALL) != 0)
    contradictory |= (flags & _DISABLED != 0) & ~start
    errors: dict[int, InvalidInputError] = {}
    for row in np.flatnonzero(~sound).tolist():
        errors[row] = InvalidInputError(
            f"rewards: expected a finite number of at most {REWARD_MAX:.2g}, received {rewards[row]}", reason="BAD_REWARD", field="rewards"
        )
    for row in np.flatnonzero(start & (rewards != 0.0)).tolist():
        errors[row] = InvalidInputError(
            f"rewards: expected 0 in a START row, for no action came before it, received {rewards[row]}",
            reason="BAD_REWARD", field="rewards",
        )  # fmt: skip
    for row in np.flatnonzero(start & (sequences != 0)).tolist():
        errors[row] = InvalidInputError(f"sequences: expected 0 in a START row, received {sequences[row]}", field="sequences")
    for row in np.flatnonzero(contradictory).tolist():
        errors[row] = InvalidInputError(
            f"flags: expected a combination that policy_service.proto allows, received {describe_flags(int(flags[row]))}", field="flags"
        )
    return errors


def content_hashes(observations: list[Array], flags: Array, rewards: Array, given: Array, given_actions: list[Array]) -> Array:
    """Hash what each row says, uint64[n], so that a repeated number can be told from a changed one.

    Args:
        observations: One array per leaf, [n, ...].
        flags: uint8[n].
        rewards: float64[n].
        given: Rows with a given action, indices.
        given_actions: Their actions, one array per leaf.
    """
    hashes = _row_hashes([rewards, flags, *observations])
    if given.size:
        hashes[given] += _row_hashes(given_actions) * _FACTORS[-1]  # so that a change here makes up for none in the row
    return hashes


def _row_hashes(columns: list[Array]) -> Array:
    """Hash the bytes of each row, uint64[n]. Equal rows hash equally for the life of the process, whatever stands beside them."""
    rows = len(columns[0])
    parts = [np.ascontiguousarray(column).reshape(rows, math.prod(column.shape[1:])).view(np.uint8) for column in columns]
    width = sum(part.shape[1] for part in parts)
    if width > _WIDE_BYTES:
        data = np.concatenate(parts, axis=1).tobytes()
        return np.array([hash(data[first : first + width]) for first in range(0, len(data), width)], np.int64).view(np.uint64)
    if missing := -width % 4:
        parts.append(np.zeros((rows, missing), np.uint8))
    # Multilinear hashing: two rows of 32-bit words meet by chance once in 2**32 choices of the 64-bit factors, or less.
    words = np.concatenate(parts, axis=1).view(np.uint32)
    hashes: Array = words @ _FACTORS[: words.shape[1]]
    return hashes


def id_error(field: str, name: str) -> InvalidInputError | None:
    """Say that an id is too long, if it is."""
    if len(name) <= MOST_ID_BYTES // 4:  # no character takes more than four bytes
        return None
    size = len(name) if name.isascii() else len(name.encode())
    if size <= MOST_ID_BYTES:
        return None
    return InvalidInputError(f"{field}: expected at most {MOST_ID_BYTES} bytes of UTF-8, received {size}; choose a shorter id", field=field)
