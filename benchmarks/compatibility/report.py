"""The results as the committed page. A cell gets its color from a result of the same run or not at all."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.compatibility.cells import ACTIONS, ALGORITHMS, CELLS, ROWS, Cell, Row
from benchmarks.compatibility.players import EPISODES_AT_ONCE
from benchmarks.settings_difference import differing, shown

_COUNTS = ("actions", "actions_logged", "episodes_terminated", "episodes_truncated", "steps_sampled")
_UPDATES = 2
_COLUMNS = ("observations", "model", "env runner", "connectors", *ACTIONS)
_POLICIES = {"VectorizedPolicy": "array code", "ConnectorPolicy": "RLlib's"}
_OUTCOMES = {"yes": "yes", "no": "**no**", "not in RLlib": "not in RLlib"}

HEAD = """# Compatibility

Written by `{command}` on {date}, in {seconds:.0f} s, from real runs of all {cells} cells: {counts}.
Ray {ray}, PyTorch {torch}, Gymnasium {gymnasium}, rllib-policy-server {ours}; {machine}.

`yes`: the algorithm was built from a configuration as `policy-server serve` takes it, its env runner served over gRPC, and a client
played {episodes_at_once} episodes at a time on random observations: ended and truncated ones, with actions of its own (`log_action`)
among the policy's. At least {updates} updates were made of these steps, their weights arrived at the client, all losses and weights
were finite, and every action lay in its space. Spaces and nets are small: this says what works together, not how well it learns.
`not in RLlib`: that failed, and so did RLlib's own env runner on a Gymnasium environment with the same settings; a note says why.
`no`: it failed here alone, or for a reason that we have not looked into.

Flattened: `[connectors] flatten = "auto"`. The user's RLModule is one from scratch with PPO, APPO and IMPALA; DQN and SAC ask so much of
theirs that it is RLlib's with an encoder of the user's.
Env runner `actor`: in a Ray actor, as in the daemon; `local`: in the learner's process, which starts faster. Connectors `array code`:
what they do is done on whole batches; `RLlib's`: RLlib's own pipelines run on live episodes. Figures and errors of a run are in
`build/compatibility/CELL.json`; the cells are defined in `benchmarks/compatibility/cells.py`.

Settings of all cells that differ from the shipped defaults; each has its spaces, net and connectors besides, and small batches:

```toml
{settings}
```
"""


class ReportError(ValueError):
    """Results that don't bear the page out."""


@dataclass(frozen=True)
class Run:
    """What the page says of a run."""

    command: str
    """What was called."""
    date: str
    """When, YYYY-MM-DD."""
    seconds: float
    """How long all of it took."""
    versions: Mapping[str, str]
    """Of `ray`, `torch`, `gymnasium` and `ours`."""
    machine: str
    """Where, in one line."""


def markdown(results: Mapping[str, Mapping[str, Any]], run: Run) -> str:
    """Return the page.

    Raises:
        ReportError: A cell has no result, a result no cell, or a green one not everything that makes it green.
    """
    if unknown := sorted(set(results) - {cell.name for cell in CELLS}):
        raise ReportError(f"{unknown[0]}: expected a cell of cells.py")
    for cell in CELLS:
        _check(cell, results.get(cell.name))
    found = Counter(result["outcome"] for result in results.values())
    head = HEAD.format(
        command=run.command,
        date=run.date,
        seconds=run.seconds,
        cells=len(CELLS),
        counts=", ".join(f"{found[outcome]} {outcome}" for outcome in _OUTCOMES),
        machine=run.machine,
        episodes_at_once=EPISODES_AT_ONCE,
        updates=_UPDATES,
        settings=shown(_of_all([differing(cell.server_config()) for cell in CELLS])),
        **run.versions,
    )
    notes: dict[str, int] = {}
    tables = "".join(f"\n## {algorithm}\n\n{_table(algorithm, results, notes)}\n" for algorithm in ALGORITHMS)
    listed = "".join(f"{number}. {note}\n" for note, number in notes.items())
    return head + tables + (f"\n## Notes\n\n{listed}" if notes else "")


def _of_all(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that all have alike."""
    return {key: value for key, value in settings[0].items() if all(other.get(key) == value for other in settings)}


def cells_of(page: str) -> list[tuple[str, ...]]:
    """Return algorithm, action space, observations, model and env runner of each cell that a page shows, in its order."""
    return list(_cells_of(page))


def listing() -> list[tuple[str, ...]]:
    """Return what `cells_of` finds on a page that shows the cells of cells.py."""
    return [(cell.algorithm, cell.action, cell.row.observations, cell.row.model, _env_runner(cell.row)) for cell in CELLS]


def _cells_of(page: str) -> Iterator[tuple[str, ...]]:
    algorithm = ""
    actions: list[str] = []
    for line in page.splitlines():
        if line.startswith("## "):
            algorithm = line.removeprefix("## ")
        elif line.startswith("| "):
            observations, model, env_runner, _, *columns = (text.strip() for text in line.strip("| ").split("|"))
            if observations == _COLUMNS[0]:
                actions = columns
                continue
            for action, column in zip(actions, columns, strict=True):
                if not re.fullmatch(r"(yes|(\*\*no\*\*|not in RLlib) \(\d+\))", column):
                    raise ReportError(f"{algorithm}, {observations}, {model}, {action}: expected an outcome, received {column!r}")
                yield algorithm, action, observations, model, env_runner


def _check(cell: Cell, result: Mapping[str, Any] | None) -> None:
    if result is None:
        raise ReportError(f"{cell.name}: expected a result of this run, received none")
    if result["cell"] != cell.name or result["outcome"] not in _OUTCOMES:
        raise ReportError(f"{cell.name}: expected its own result and an outcome of {', '.join(_OUTCOMES)}, received {result}")
    if result["outcome"] == "not in RLlib" and not (result.get("limit") and result.get("rllib", "works") != "works"):
        raise ReportError(f"{cell.name}: expected RLlib's own error and what it means, received {result}")
    if result["outcome"] != "yes":
        return
    evidence = result.get("evidence", {})
    versions = evidence.get("versions") or [0]
    if (
        "error" in result
        or any(evidence.get(count, 0) < 1 for count in _COUNTS)
        or evidence.get("updates", 0) < _UPDATES
        or max(versions) - min(versions) < _UPDATES
        or not evidence.get("losses")
        or not all(map(math.isfinite, evidence["losses"].values()))
        or evidence.get("policy") not in _POLICIES
    ):
        raise ReportError(f"{cell.name}: expected everything that makes a cell green, received {result}")


def _table(algorithm: str, results: Mapping[str, Mapping[str, Any]], notes: dict[str, int]) -> str:
    rows = [list(_COLUMNS)]
    for row in ROWS:
        of_row = [results[Cell(algorithm, action, row).name] for action in ACTIONS]
        policies = sorted({_POLICIES[result["evidence"]["policy"]] for result in of_row if result["outcome"] == "yes"})
        shown = [_outcome(result, notes) for result in of_row]
        rows.append([row.observations, row.model, _env_runner(row), ", ".join(policies), *shown])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _env_runner(row: Row) -> str:
    return "actor" if row.in_actor else "local"


def _outcome(result: Mapping[str, Any], notes: dict[str, int]) -> str:
    outcome: str = result["outcome"]
    if outcome == "yes":
        return outcome
    note = f"{result['limit']}: `{result['rllib']}`" if outcome == "not in RLlib" else f"`{result['error']}`{_alone(result)}"
    return f"{_OUTCOMES[outcome]} ({notes.setdefault(note, len(notes) + 1)})"


def _alone(result: Mapping[str, Any]) -> str:
    alone = result.get("rllib")
    return "" if alone is None else "; RLlib alone: it works" if alone == "works" else f"; RLlib alone: `{alone}`"
