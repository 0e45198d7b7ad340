"""The recorded results as the committed page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.learning.cases import ALONE, CASES, OVER_GRPC, SIDES, Case
from benchmarks.learning.ratio import Ratio, geometric_mean, ratio_of
from benchmarks.settings_difference import shown
from policyserver.server.config.algorithm_defaults import DEFAULTS_BY_ALGORITHM

HEAD = """# Algorithms

`[algorithm] name` is one of PPO, APPO, IMPALA, DQN and SAC. This page says what each has learned here, and what this server sets for it.

## What they learned

Written by `make algorithms` on {dates} from recorded runs ({machines}), none left out; a run's figures are in
`build/learning/CASE-SIDE-SEED.json`. *RLlib alone*: its own env runner, in one actor, steps copies of the environment. *Over gRPC*:
`policy-server serve`, and Gymnasium's environment in a client process of its own, a thread for each copy. Both have the same resolved
`[algorithm]` tables. *Steps* are those until the mean return of the newest episodes first reached the bar.

"""

_COLUMNS = ("case", "environment", "to reach", "side", "seeds", "steps, geometric mean", "ratio", "90 % interval", "bar", "")
_RUNS = ("case", "side", "seed", "steps", "return", "seconds")

TAIL = """
*Ratio*: of the geometric means of the steps, over gRPC to RLlib alone; its interval is Welch's on their logarithms. A run that did not
reach the bar counts with the steps it made. The bars and the seeds were fixed before the runs (`benchmarks/learning/cases.py`).

## What this server sets

Where RLlib's defaults don't fit online learning (`server/config/algorithm_defaults.py`). A key of the configuration
file replaces its value.

{defaults}
- **APPO, IMPALA** don't wait for their env runners. Their actors pull the newest weights before each hand-off, and hand off whole
  fragments (`rollout_fragment_length` steps), for RLlib counts a hand-off as a fragment however little is in it. RLlib's own
  `timeout_s_sampler_manager` of 0 would take a core, with and without clients.
- **APPO** has RLlib's plain queue in place of its circular buffer, which looks for a batch 10,000 times a second until one comes;
  `num_epochs = 2` makes up for the second use of a batch.
- **DQN, SAC** get {fragment} steps with each hand-off, on the average whatever the length of a segment, and then make the updates that
  belong to them, however slow the clients are. `training_intensity` is steps replayed for one sampled, but RLlib reckons with one env
  runner more than there is: with one serving actor twice as much is replayed, so {dqn_intensity:g} means one update of 32 for every
  fourth step, and {sac_intensity:g} one of 256 for every step. With a learner that can't keep up clients wait, or lower it.
- **DQN** explores by `epsilon`, counted in steps of all serving actors.
- With `n_step > 1` or a burn-in, a page's newest steps wait for the next segment, so that a replay buffer can draw from every piece.
- **No clients**: a server of any algorithm takes less than 0.3 of a core then, Ray's own processes included; a test holds that.

## Going back to an older checkpoint

`Algorithm.restore_from_path` on a live algorithm takes effect at once: clients are answered by the older weights, under the older
`weights_seq_no`, and the next update goes on from there. RLlib's own env runner would go on with the newer weights until the learner had
passed their version. `Algorithm.set_state` with an older state does not go back, because RLlib's learner keeps the newer weights under the
older version; leave `state["learner_group"]["learner"]["weights_seq_no"]` out and it does, with the version counting on.

## The runs

{runs}

## The settings of the runs

Every setting that differs from this server's shipped defaults, printed from the configuration that ran; both sides have the same.

"""


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the whole page."""
    ordered = sorted(results, key=lambda result: (_order(result["case"]), SIDES.index(result["side"]), result["seed"]))
    head = HEAD.format(dates=_all(results, "date"), machines=_all(results, "machine"))
    fragment = DEFAULTS_BY_ALGORITHM["DQN"]["env_runners"]["rollout_fragment_length"]
    intensities = {f"{name.lower()}_intensity": DEFAULTS_BY_ALGORITHM[name]["training"]["training_intensity"] for name in ("DQN", "SAC")}
    runs = _table([_RUNS, *map(_run, ordered)])
    tail = TAIL.format(defaults=_defaults(), fragment=fragment, runs=runs, **intensities)
    rows = [row for case in CASES for row in _sides(case, [result for result in ordered if result["case"] == case.name])]
    return head + _table([_COLUMNS, *rows]) + "\n" + tail + "\n".join(_settings(case, ordered) for case in CASES)


def missed(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what does not hold, a line each; nothing if all cases have both sides and every bar is met."""
    lines = []
    for case in CASES:
        ours, theirs = (_steps(results, case, side) for side in (OVER_GRPC, ALONE))
        if len(ours) < case.seeds or len(theirs) < case.seeds:
            lines.append(f"{case.name}: expected {case.seeds} seeds on each side, there are {len(ours)} and {len(theirs)}")
        elif not _is_met(case, ratio_of(ours, theirs)):
            lines.append(f"{case.name}: {ratio_of(ours, theirs)} misses {_bar(case)}")
    return lines


def _sides(case: Case, results: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the two rows of a case."""
    steps = {side: _steps(results, case, side) for side in SIDES}
    ratio = ratio_of(steps[OVER_GRPC], steps[ALONE]) if min(map(len, steps.values())) > 1 else None
    rows: list[tuple[str, ...]] = []
    for side in SIDES:
        mean = f"{geometric_mean(steps[side]):,.0f}" if steps[side] else "-"
        compared = ("", "", "", "")
        if side == OVER_GRPC and ratio is not None:
            is_met = "met" if _is_met(case, ratio) else "**missed**"
            compared = f"{ratio.value:.2f}", f"{ratio.lower:.2f} to {ratio.upper:.2f}", _bar(case), is_met
        rows.append((case.name, case.environment, f"{case.bar:g} over {case.window}", side, str(len(steps[side])), mean, *compared))
    return rows


def _bar(case: Case) -> str:
    upper = f", upper end {case.upper_max:g}" if case.upper_max is not None else ""
    return f"{case.ratio_max:g}{upper}"


def _is_met(case: Case, ratio: Ratio) -> bool:
    return ratio.value <= case.ratio_max and (case.upper_max is None or ratio.upper <= case.upper_max)


def _steps(results: Sequence[Mapping[str, Any]], case: Case, side: str) -> list[int]:
    return [result["steps"] for result in results if result["case"] == case.name and result["side"] == side]


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _order(name: str) -> int:
    return [case.name for case in CASES].index(name)


def _all(results: Sequence[Mapping[str, Any]], key: str) -> str:
    return ", ".join(sorted({result[key] for result in results}))


def _run(result: Mapping[str, Any]) -> tuple[str, ...]:
    steps = f"{result['steps']:,}" if result["reached"] else f"not within {result['steps']:,}"
    return result["case"], result["side"], str(result["seed"]), steps, f"{result['mean_return']:.0f}", f"{result['seconds']:.0f}"


def _defaults() -> str:
    rows = [
        f"| {name} | `{table}` | {', '.join(f'`{key} = {_toml(value)}`' for key, value in values.items())} |\n"
        for name, tables in DEFAULTS_BY_ALGORITHM.items()
        for table, values in tables.items()
    ]
    return "| algorithm | table | set |\n|---|---|---|\n" + "".join(rows)


def _settings(case: Case, results: Sequence[Mapping[str, Any]]) -> str:
    printed = {shown(result["settings"]) for result in results if result["case"] == case.name}
    how = "a thread each" if case.threads else "stepped together"
    texts = "\n".join(f"```toml\n{text}\n```" for text in sorted(printed)) or "Not run."
    return f"### {case.name}\n\n{case.environment}, {case.copies} copies, over gRPC {how}.\n\n{texts}\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)
