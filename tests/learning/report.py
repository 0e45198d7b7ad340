"""The recorded results as the committed page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from server.algorithm_defaults import DEFAULTS_BY_ALGORITHM
from tests.learning.cases import CASES, SIDES, Case

HEAD = """# Algorithms

`[algorithm] name` is one of PPO, APPO, IMPALA, DQN and SAC. This page says what each has learned here, and what this server sets for it.

## What they learned

Written by `make algorithms` on {dates} from recorded runs ({machines}), none left out; a run's figures are in
`build/learning/CASE-SIDE-SEED.json`. *RLlib alone*: its own env runner, in one actor, steps copies of the environment. *Over gRPC*:
`policy-server serve`, and Gymnasium's environment in a client process of its own, which steps as many copies with each `get_actions`. Both
have the same configuration, given below. *Steps* are those until the mean return of the newest episodes reached the bar; *seconds* run from
the first step to the last, on a machine that was shared with other work.

"""

_COLUMNS = ("case", "environment", "to reach", "side", "seed", "steps", "return", "seconds")

TAIL = """
Over gRPC the steps that a client makes during an update are trained on, too, one policy version late; RLlib's synchronous runner stands
still meanwhile. Here the steps of a client that outruns the learner were withheld (`hand_off.overflow = "block"`), so that none is lost and
the step counts can be compared; the default drops the oldest, which suits environments that don't wait.

## What this server sets

Where RLlib's defaults don't fit online learning (`server/algorithm_defaults.py`). A key of the configuration file replaces its value.

{defaults}
- **APPO, IMPALA** don't wait for their env runners. Their actors pull the newest weights before each hand-off, and hand over whole
  fragments (`rollout_fragment_length` steps), for RLlib counts a hand-off as a fragment however little is in it. RLlib's own
  `timeout_s_sampler_manager` of 0 would take a core, with and without clients.
- **APPO** has RLlib's plain queue in place of its circular buffer, which looks for a batch 10,000 times a second while there is none;
  `num_epochs = 2` makes up for the second use of a batch.
- **DQN, SAC** get {fragment} steps with each hand-off and then make the updates that belong to them. `training_intensity` is steps
  replayed for one sampled, but RLlib reckons with one env runner more than there is: with one serving actor twice as much is replayed, so
  {dqn_intensity:g} means one update of 32 for every fourth step, and {sac_intensity:g} one of 256 for every step. A client that is
  slower than a fragment in `hand_off.sample_wait_s` (2 s) gets more updates for a step. With a learner that can't keep up, lower it: what
  is not absorbed is dropped.
- **DQN** explores by `epsilon`, counted in steps of all serving actors.
- With `n_step > 1` or a burn-in, a page's newest steps wait for the next segment, so that a replay buffer can draw from every piece.
- **No clients**: a server of any algorithm takes less than 0.3 of a core then, Ray's own processes included; a test holds that.

## Going back to an older checkpoint

`Algorithm.restore_from_path` on a live algorithm takes effect at once: clients are answered by the older weights, under the older
`weights_seq_no`, and the next update goes on from there. RLlib's own env runner would go on with the newer weights until the learner had
passed their version. `Algorithm.set_state` with an older state does not go back, because RLlib's learner keeps the newer weights under the
older version; leave `state["learner_group"]["learner"]["weights_seq_no"]` out and it does, with the version counting on.

## The settings of the runs

Everything else is this server's default for the algorithm.

"""


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the whole page."""
    ordered = sorted(results, key=lambda result: (_order(result["case"]), SIDES.index(result["side"]), result["seed"]))
    rows = [_COLUMNS, *(_row(case, result) for result in ordered for case in CASES if case.name == result["case"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    table = "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
    head = HEAD.format(dates=_all(results, "date"), machines=_all(results, "machine"))
    fragment = DEFAULTS_BY_ALGORITHM["DQN"]["env_runners"]["rollout_fragment_length"]
    intensities = {f"{name.lower()}_intensity": DEFAULTS_BY_ALGORITHM[name]["training"]["training_intensity"] for name in ("DQN", "SAC")}
    tail = TAIL.format(defaults=_defaults(), fragment=fragment, **intensities)
    return head + table + "\n" + tail + "\n".join(map(_settings, CASES))


def _order(name: str) -> int:
    return [case.name for case in CASES].index(name)


def _all(results: Sequence[Mapping[str, Any]], key: str) -> str:
    return ", ".join(sorted({result[key] for result in results}))


def _row(case: Case, result: Mapping[str, Any]) -> tuple[str, ...]:
    steps = f"{result['steps']:,}" if result["reached"] else f"not within {result['steps']:,}"
    figures = (str(result["seed"]), steps, f"{result['mean_return']:.0f}", f"{result['seconds']:.0f}")
    return (case.name, case.environment, f"{result['bar']:g} over {case.window}", result["side"], *figures)


def _defaults() -> str:
    rows = [
        f"| {name} | `{table}` | {', '.join(f'`{key} = {_toml(value)}`' for key, value in values.items())} |\n"
        for name, tables in DEFAULTS_BY_ALGORITHM.items()
        for table, values in tables.items()
    ]
    return "| algorithm | table | set |\n|---|---|---|\n" + "".join(rows)


def _settings(case: Case) -> str:
    tables = "\n".join(
        f"[algorithm.{name}]\n" + "\n".join(f"{key} = {_toml(value)}" for key, value in table.items())
        for name, table in case.tables.items()
    )
    how = "a thread each" if case.threads else "stepped together"
    return f"### {case.name}\n\n{case.environment}, {case.copies} copies, over gRPC {how}.\n\n```toml\n{tables}\n```\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)
