"""A run's sums keep every digit; enough steps stop the run, its last slot ends it, and its first failure is kept."""

from __future__ import annotations

import math

import numpy as np

from policyserver.pipelines.run_state import ExactSum, RunState


def test_the_ledger_keeps_every_digit() -> None:
    values = np.random.default_rng(0).normal(scale=10.0 ** np.random.default_rng(1).uniform(-8, 8, 50_000))
    ledger = ExactSum()
    for value in values.tolist():
        ledger.add(value)
    assert ledger.value == math.fsum(values)
    cancelling = ExactSum()
    for value in (1.0, 1e100, 1.0, -1e100):
        cancelling.add(value)
    assert cancelling.value == 2.0


def test_enough_steps_stop_the_run_and_the_last_slot_ends_it() -> None:
    run = RunState(slots=2, steps=10)
    called: list[str] = []
    run.when_ended(lambda: called.append("early"))
    run.add_steps(9)
    assert not run.stopping.is_set()
    run.add_steps(1)
    assert run.stopping.is_set()
    run.give_back_slots(1)
    assert not run.ended.is_set()
    run.give_back_slots(1)
    assert run.ended.is_set()
    run.when_ended(lambda: called.append("late"))
    assert called == ["early", "late"]


def test_the_first_failure_is_kept() -> None:
    run = RunState(slots=1, steps=None)
    run.fail(RuntimeError("first"))
    run.fail(RuntimeError("second"))
    assert str(run.failure) == "first"
    assert run.ended.is_set()
