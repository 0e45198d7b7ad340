"""Arrays of a fixed, generous size whose memory the operating system hands out page by page, on first touch."""

from __future__ import annotations

import mmap
import platform
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from policyserver.common.spaces import Array

# Python 3.11's mmap module has no name for it. Without it Linux refuses to reserve more than the machine has.
_NORESERVE = 0x4000 if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64") else 0


class LazyArray:
    """Own one zero-initialised array that costs memory only where it has been written.

    An array sized for the largest number of episodes a server may ever hold needs no growth logic, and an idle server pays for none of
    it. `release` gives the memory of rows back; they read as zeros afterwards.
    """

    def __init__(self, rows: int, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        """Reserve address space for `rows` rows of a shape and a dtype.

        Raises:
            MemoryError: The system does not reserve that much address space.
        """
        element = np.dtype(dtype)
        self.row_bytes = element.itemsize * int(np.prod(shape, dtype=np.int64))
        size = max(rows * self.row_bytes, 1)
        try:
            self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
        except OSError as error:
            raise MemoryError(
                f"expected {size / 1e9:.1f} GB of address space for {rows} rows of {element}{list(shape)}, refused by the system: {error}; "
                "lower episodes.max_open or hand_off.segment_steps, or allow overcommit (vm.overcommit_memory)"
            ) from error
        count = rows * self.row_bytes // element.itemsize
        self.array: Array = np.frombuffer(self._memory, element, count).reshape(rows, *shape)

    def release(self, first_row: int, rows: int) -> None:
        """Give the memory of `rows` rows from `first_row` on back to the operating system, as far as whole memory pages go."""
        start = -(-first_row * self.row_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (first_row + rows) * self.row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start and sys.platform == "linux":
            self._memory.madvise(mmap.MADV_DONTNEED, start, end - start)


class LazyTable:
    """Give out the row numbers 0 .. capacity - 1, lowest first, take them back, and own columns with a row for each.

    Numbers never used before come from a counter, so that a large capacity costs nothing, and returned ones are used first, so that the
    touched part of the columns stays small.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._columns: list[LazyArray] = []
        self._returned: list[int] = []
        self._fresh = 0

    def column(self, dtype: npt.DTypeLike, shape: Sequence[int] = ()) -> Array:
        """Add a column, [capacity, *shape]; `trim` gives its memory back."""
        self._columns.append(LazyArray(self.capacity, shape, dtype))
        return self._columns[-1].array

    @property
    def row_bytes(self) -> int:
        """Size of a row of all columns."""
        return sum(column.row_bytes for column in self._columns)

    @property
    def used(self) -> int:
        """Numbers that were given out and not returned."""
        return self._fresh - len(self._returned)

    @property
    def touched(self) -> int:
        """Numbers below this one were given out since the last `trim`."""
        return self._fresh

    def take(self) -> int | None:
        """Return a free number, or None if all are in use."""
        if self._returned:
            return self._returned.pop()
        if self._fresh == self.capacity:
            return None
        self._fresh += 1
        return self._fresh - 1

    def give(self, number: int) -> None:
        """Take a number back."""
        self._returned.append(number)

    def trim(self) -> tuple[int, int]:
        """Give the memory of the unused rows at the upper end back to the operating system; return them as (first, count)."""
        before = self._fresh
        self._returned.sort(reverse=True)
        kept = 0
        for number in self._returned:
            if number != self._fresh - 1:
                break
            self._fresh -= 1
            kept += 1
        del self._returned[:kept]
        if kept:
            for column in self._columns:
                column.release(self._fresh, before - self._fresh)
        return self._fresh, before - self._fresh
