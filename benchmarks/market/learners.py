"""`make learn ARGS=--learners`: the demo's problem with the demo's learner and with RLlib's default settings, seed by seed.

Both see the same prices and the same number of environment steps, over gRPC; what differs is the net and the settings of the update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from benchmarks.charts import Curve
from benchmarks.market.page import made_by, pair, row, write_part
from benchmarks.market.picture import learning_curve, picture, returns
from benchmarks.market.variants import SEEDS
from policyserver.pipelines.demo.demo import DemoResult, run_demo
from policyserver.pipelines.demo.setup import DEMO_SERVER, DemoConfig
from policyserver.pipelines.runtime.stop_signals import StopSignals
from policyserver.pipelines.summary import standard_error

DEFAULT_STEPS = 100_000
"""Steps of each run: 25 updates, which take RLlib's default settings a quarter of an hour on two cores."""

TITLE = "## Beside RLlib's default settings"
"""Heading of what is written here."""

RLLIB_SERVER = Path(__file__).with_name("rllib_defaults_server.toml")
"""RLlib's own default settings of PPO with an LSTM, on the demo's problem."""

_PICTURE = "learners.svg"


@dataclass(frozen=True, slots=True)
class Learner:
    """Settings that learn the problem."""

    title: str
    """What they are called in the table and the picture."""
    server: Path
    """The server's settings."""
    net: str
    """Their net and what an update is, in words."""


LEARNERS = (
    Learner("the demo's", DEMO_SERVER, "LSTM 64 behind 64-64; 6 epochs, minibatches of 512, lr 5e-4"),
    Learner("RLlib's defaults", RLLIB_SERVER, "LSTM 256 behind 256-256; 30 epochs, minibatches of 128, lr 5e-5"),
)

Results = dict[tuple[Learner, int], DemoResult]


def compare_learners(folder: Path, steps: int | None, out: TextIO, stop: StopSignals) -> None:
    """Run each learner for every seed; after each seed, write the section of learning.md and learners.svg into `folder`.

    Args:
        folder: Where they go.
        steps: Steps of each run; None takes `DEFAULT_STEPS`.
        out: Where the runs are shown.
        stop: Ends the run at hand, and with it the rest; what is written is of the seeds that both have finished.
    """
    results: Results = {}
    for seed in SEEDS:
        for learner in LEARNERS:
            out.write(f"\n{learner.title}, seed {seed} ({len(results) + 1} of {len(LEARNERS) * len(SEEDS)})\n")
            result = run_demo(DemoConfig(seed=seed, steps=steps or DEFAULT_STEPS, server=learner.server), out, stop)
            if result.interrupted:
                out.write(f"interrupted: {folder / 'learning.md'} has the seeds before {seed}\n")
                return
            results[learner, seed] = result
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _PICTURE).write_text(picture({f"seed {done}": _curves(done, results) for done in _seeds(results)}), encoding="utf-8")
        write_part(folder, TITLE, _section(results, steps))
        out.write(f"wrote {folder / 'learning.md'} and {folder / _PICTURE}, seeds 0 to {seed}\n")


def _seeds(results: Results) -> list[int]:
    return sorted({seed for _, seed in results})


def _curves(seed: int, results: Results) -> list[Curve]:
    curves = [learning_curve(learner.title, results[learner, seed], "mean") for learner in LEARNERS]
    return [*curves, learning_curve("random", results[LEARNERS[0], seed], "random")]


def _section(results: Results, steps: int | None) -> str:
    """Return the comparison as Markdown."""
    command = 'make learn ARGS="--learners' + (f" --steps {steps}" if steps else "") + '"'
    head = ("learner", "seed", "steps", "updates", "seconds", "last tenth", "whole run", "random", "dropped", "fallbacks", "staleness")
    lines = [
        TITLE,
        "",
        f"Made by `{command}` ({made_by()}). Both have the demo's problem over gRPC, the same prices",
        "and as many steps, gamma 0.95 and lambda 0.9. Mean return ± standard error over the last tenth of the episodes, and mean return",
        "over all of them. The steps wait for the learner and not the other way round, so the seconds are the learner's. Fallbacks are",
        "actions taken without the server, because its answer came too late.",
        "",
        *(f"- {learner.title}: {learner.net}" for learner in LEARNERS),
        "",
        f"![Mean return over the course of training, seed by seed]({_PICTURE})",
        "",
        row(head),
        row(["---"] * len(head)),
        *(row(_cells(learner, seed, result)) for (learner, seed), result in results.items()),
        "",
        *_differences(results),
    ]
    return "\n".join(lines) + "\n"


def _cells(learner: Learner, seed: int, result: DemoResult) -> list[str]:
    s = result.summary
    return [
        learner.title,
        str(seed),
        f"{s.steps:,}",
        str(s.learner_updates),
        f"{s.seconds:.0f}",
        pair(s.return_mean, s.return_stderr),
        f"{_whole_run(result):+.2f}",
        f"{s.random_mean:+.2f}",
        f"{s.steps_dropped / max(s.steps, 1):.1%}",
        str(s.fallback_actions),
        f"{s.staleness_mean:.2f}",
    ]


def _whole_run(result: DemoResult) -> float:
    """Return the mean return of all whole episodes: the area under the learning curve."""
    return next((float(row["mean"]) for row in returns(result, 1)), math.nan)


def _differences(results: Results) -> list[str]:
    """Return what the first learner has more than the second, over the seeds, and how many times faster it was through its steps."""
    ours, peer = ([results[learner, seed] for seed in _seeds(results)] for learner in LEARNERS)
    last = np.array([a.summary.return_mean - b.summary.return_mean for a, b in zip(ours, peer, strict=True)])
    whole = np.array([_whole_run(a) - _whole_run(b) for a, b in zip(ours, peer, strict=True)])
    faster = ", ".join(f"{b.summary.seconds / max(a.summary.seconds, 1e-9):.1f}" for a, b in zip(ours, peer, strict=True))
    return [
        f"Returns, {LEARNERS[0].title} minus {LEARNERS[1].title}, mean of the seeds ± its standard error: last tenth "
        f"{pair(float(last.mean()), standard_error(last))}, whole run {pair(float(whole.mean()), standard_error(whole))}.",
        f"{LEARNERS[1].title} took {faster} times the seconds.",
    ]
