"""Random numbers that depend on an episode and a step alone, and so fall alike whatever is drawn beside them."""

from __future__ import annotations

import hashlib
import secrets

import numpy as np
import numpy.typing as npt

_MASK = 2**64 - 1
_STEP, _LANE, _FIRST, _SECOND = 0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03, 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB
_U64_STEP, _U64_LANE, _U64_FIRST, _U64_SECOND = (np.uint64(value) for value in (_STEP, _LANE, _FIRST, _SECOND))
_U64_30, _U64_27, _U64_12 = (np.uint64(bits) for bits in (30, 27, 12))
_TO_UNIT = 2.0**-52
_FEW = 4  # up to here Python's own integers are the faster ones


def draw_key(episode_id: str) -> int:
    """Return what the actions of an episode are drawn by: 64 bits of a hash of its id."""
    return int.from_bytes(hashlib.blake2b(episode_id.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class KeyedDraws:
    """Draw numbers by (seed, key, step): a counter goes through a hash, and there is no state.

    References: the hash is SplitMix64's (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), of whose result
    the upper 52 bits are taken.
    """

    def __init__(self, seed: int | None) -> None:
        """Take a seed; None makes one."""
        self._offset = _mixed((seed if seed is not None else secrets.randbits(64)) * _LANE & _MASK)
        self._u64_offset = np.uint64(self._offset)

    def uniform(self, keys: npt.NDArray[np.uint64], steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Draw one number for each row, evenly from (0, 1), float64[n].

        Args:
            keys: Of the episodes, uint64[n].
            steps: Numbers of the steps, int64[n], at least 0.
        """
        if len(keys) <= _FEW:
            counters = [key + step * _STEP + self._offset for key, step in zip(keys.tolist(), steps.tolist(), strict=True)]
            return np.array([((_mixed(counter & _MASK) >> 12) + 0.5) * _TO_UNIT for counter in counters])
        return _unit(self._counters(keys, steps))

    def uniforms(self, keys: npt.NDArray[np.uint64], steps: npt.NDArray[np.int64], lanes: int) -> npt.NDArray[np.float64]:
        """Draw several independent numbers for each row, evenly from (0, 1), float64[n, lanes]."""
        return _unit(self._counters(keys, steps)[:, None] + np.arange(lanes, dtype=np.uint64) * _U64_LANE)

    def _counters(self, keys: npt.NDArray[np.uint64], steps: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        counters = steps.view(np.uint64) * _U64_STEP
        counters += keys
        counters += self._u64_offset
        return counters


def _mixed(value: int) -> int:
    value = (value ^ value >> 30) * _FIRST & _MASK
    return (value ^ value >> 27) * _SECOND & _MASK


def _unit(counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Hash counters, in their place, to numbers in (0, 1)."""
    shifted = counters >> _U64_30
    counters ^= shifted
    counters *= _U64_FIRST
    np.right_shift(counters, _U64_27, shifted)
    counters ^= shifted
    counters *= _U64_SECOND
    counters >>= _U64_12
    numbers: npt.NDArray[np.float64] = np.multiply(counters + 0.5, _TO_UNIT, dtype=np.float64)
    return numbers
