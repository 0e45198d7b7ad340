"""The figures that the calculation begins with, read from docs/benchmarks.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.folders import DOCS

PAGE = DOCS / "benchmarks.md"


class FigureMissingError(ValueError):
    """The page has no such case, or the case no such figure."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Processor time and memory as measured with the net of two layers of 256, observations of 10 numbers and 3 actions."""

    serving_us: float
    """Of the serving process for an action, while the learner is busy, of calls with 1,000 episodes each."""
    serving_lone_us: float
    """The same of 64 threads with one episode each."""
    client_us: float
    """Of the client's process for an action of such a call."""
    hand_off_us: float
    """From the actor's `sample()` to the learner's list of episodes, for a step: of the actor and the driver together."""
    learner_us: float
    """Of an update on a CPU for a step, with the demo's PPO (6 epochs)."""
    learner_gpu_us: float
    """The same on a GPU, each epoch in one minibatch."""
    episode_bytes: float
    """Resident memory of an open episode."""


def read(client_us: float, page: Path = PAGE) -> Measured:
    """Read the figures from the page, but for the client's, which it has not.

    Raises:
        FigureMissingError: One is not there.
    """
    text = page.read_text(encoding="utf-8")
    return Measured(
        serving_us=_cell(text, "open_10000_mlp_busy", "server CPU us/action"),
        serving_lone_us=_cell(text, "threads_64_mlp_busy", "server CPU us/action"),
        client_us=client_us,
        hand_off_us=1e6 / _cell(text, "hand_off_mlp", "steps/s"),
        learner_us=1e6 / _cell(text, "learner_lstm", "steps/s"),
        learner_gpu_us=1e6 / _cell(text, "learner_lstm_gpu_whole_batch", "steps/s"),
        episode_bytes=_found(text, "memory_open_idle", "bytes_per_episode"),
    )


def _cell(text: str, case: str, column: str) -> float:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    header = next((row for row in rows if row[0] == "case"), [])
    row = next((row for row in rows if row[0] == case), [])
    if column not in header or len(row) != len(header) or not row[header.index(column)]:
        raise FigureMissingError(f"{PAGE}: expected a row {case} with a figure under {column!r}; run `make bench` for that case")
    return float(row[header.index(column)].replace(",", ""))


def _found(text: str, case: str, name: str) -> float:
    line = next((line for line in text.splitlines() if line.startswith(f"- `{case}`:")), "")
    figure = re.search(rf"\b{name} ([\d,.]*\d)", line.partition("Found:")[2])
    if figure is None:
        raise FigureMissingError(f"{PAGE}: expected {name} among what was found for {case}; run `make bench` for that case")
    return float(figure[1].replace(",", ""))
