"""How large passes are, and how long their parts take: a few additions for each pass, whatever its rows."""

from __future__ import annotations

_CLASSES = 25


class DoublingHistogram:
    """Counts whole numbers in classes whose bounds double: class k has those of at most 2**k, and the last one all others."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * _CLASSES
        self.total = 0.0

    def add(self, value: int) -> None:
        """Count a number."""
        self.counts[min(max(value - 1, 0).bit_length(), _CLASSES - 1)] += 1
        self.total += value

    def copy(self, unit: float = 1.0) -> tuple[list[int], float]:
        """Return the counts, and the sum in another unit."""
        return list(self.counts), self.total * unit


PHASES = {
    "gather": "from a message's arrival to the pass that has it",
    "decide": "the net and its connectors",
    "pass": "all of a pass",
    "answer": "handing the answers over to the streams",
}
"""The parts of a pass."""


class PassTiming:
    """The histograms of a serving process. Owned by the loop thread."""

    def __init__(self) -> None:
        self.rows = DoublingHistogram()
        """Rows of a pass."""
        self.phases = {phase: DoublingHistogram() for phase in PHASES}
        """Microseconds that the parts of a pass took."""

    def took(self, phase: str, since_s: float, until_s: float) -> None:
        """Count the time of a part, between two times of `time.perf_counter`."""
        self.phases[phase].add(int(1e6 * (until_s - since_s)))
