"""A training report goes on from the counters before it, counts what was learned, and leaves unset what was not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyserver.server.processes.training_report import VERSIONS_BEHIND, Progress, TrainingReport, training_report

BEFORE = Progress(iteration=4, steps_total=1000, learner_updates=4, weights_seq_no=4)
SAMPLED = {
    "num_env_steps_sampled": 200,
    "num_episodes": 3,
    "episode_return_mean": 12.5,
    VERSIONS_BEHIND: 50,
    "steps_behind_0": 150,
    "steps_behind_1": 50,
}
LEARNED = {"total_loss": 0.5, "mean_kl_loss": 0.01, "entropy": 1.1, "default_optimizer_learning_rate": 5e-4, "weights_seq_no": 5.0}


def report(sampled: dict[str, Any], learners: dict[str, Any]) -> TrainingReport | None:
    return training_report(
        {"env_runners": sampled, "learners": learners}, BEFORE, seconds=2.0, learn_seconds=0.5, checkpoint=Path("runs/checkpoint-1")
    )


def test_an_iteration_goes_on_from_the_counters_before_it() -> None:
    made = report(SAMPLED, {"default_policy": LEARNED, "__all_modules__": {"num_env_steps_trained": 999}})
    assert made == TrainingReport(
        iteration=5,
        weights_seq_no=5,
        return_mean=12.5,
        loss=0.5,
        kl=0.01,
        entropy=1.1,
        steps=200,
        steps_total=1200,
        seconds=2.0,
        learn_seconds=0.5,
        learner_updates=5,
        checkpoint_path="runs/checkpoint-1",
        staleness_mean=0.25,
        learning_rate=5e-4,
        steps_behind_0=150,
        steps_behind_1=50,
    )
    assert made.progress == Progress(iteration=5, steps_total=1200, learner_updates=5, weights_seq_no=5)


@pytest.mark.parametrize("steps", [0, float("nan")])
def test_an_iteration_without_steps_does_not_count(steps: float) -> None:
    assert report({**SAMPLED, "num_env_steps_sampled": steps}, {"default_policy": LEARNED}) is None


def test_an_iteration_without_an_update_does_not_count() -> None:
    assert report(SAMPLED, {"__all_modules__": {}}) is None
    assert training_report({}, BEFORE, seconds=1.0, learn_seconds=0.0, checkpoint=None) is None


def test_each_update_of_an_iteration_counts() -> None:
    made = report(SAMPLED, {"default_policy": {**LEARNED, "weights_seq_no": 30.0}})
    assert made is not None
    assert (made.weights_seq_no, made.learner_updates) == (30, 30)


def test_steps_that_are_not_enough_for_an_update_are_counted_all_the_same() -> None:
    """IMPALA's learner then says NaN for all it has."""
    made = report(SAMPLED, {"default_policy": dict.fromkeys(LEARNED, float("nan"))})
    assert made is not None
    assert made.progress == Progress(iteration=5, steps_total=1200, learner_updates=4, weights_seq_no=4)


def test_what_was_not_measured_is_unset() -> None:
    made = report(
        {"num_env_steps_sampled": 10, "num_episodes": float("nan"), "episode_return_mean": 3.0},
        {"default_policy": {"total_loss": float("nan"), "weights_seq_no": 5}},
    )
    assert made is not None
    assert (made.return_mean, made.loss, made.kl, made.entropy, made.staleness_mean) == (None, None, None, None, 0.0)
    assert made.learning_rate is None


def test_figures_of_several_modules_are_their_mean() -> None:
    other = {**LEARNED, "total_loss": 1.5, "default_optimizer_learning_rate": 1e-4}
    made = report(SAMPLED, {"one": LEARNED, "other": other, "not updated": {}})
    assert made is not None
    assert (made.loss, made.learning_rate) == pytest.approx((1.0, 3e-4))


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"qf": 3e-4, "policy": 3e-5, "alpha": 3e-4}, 3e-5),  # as RLlib's SAC names its optimizers
        ({"world_model": 1e-4, "actor": 3e-5, "critic": 3e-4}, 3e-5),  # as its DreamerV3 does
        ({"encoder": 1e-4, "head": 3e-4}, 2e-4),
        ({"policy": float("nan"), "qf": 3e-4}, None),
    ],
)
def test_of_several_optimizers_the_policys_learning_rate_counts(rates: dict[str, float], expected: float | None) -> None:
    made = report(SAMPLED, {"default_policy": {f"{name}_learning_rate": rate for name, rate in rates.items()}})
    assert made is not None
    assert made.learning_rate == pytest.approx(expected)


def test_the_log_block_has_every_number_that_a_reader_needs() -> None:
    text = str(report(SAMPLED, {"default_policy": LEARNED}))
    for part in (
        "iteration 5",
        "policy version 5",
        "return 12.5",
        "loss 0.5",
        "KL divergence 0.01",
        "entropy 1.1",
        "learning rate 0.0005",
        "steps 200",
        "checkpoint-1",
    ):
        assert part in text
