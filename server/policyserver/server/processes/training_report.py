"""One training iteration in numbers: what the daemon logs, records and pushes to the serving actors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from policyserver.common.figures import charted, figures
from policyserver.common.server_stats import TrainingIteration

VERSIONS_BEHIND = "policy_versions_behind_sum"
"""Env-runner metric (reduce "sum"): over the steps of this `sample()`, policy version served at hand-off minus version that acted."""
STEPS_BEHIND = tuple(name for name in figures(TrainingIteration) if name.startswith("steps_behind_"))
"""Env-runner metrics (reduce "sum"): steps of this `sample()` by how many policy versions lie between acting and hand-off, as in
`policyserver.server.episodes.segments.BEHIND_FROM`."""
STEPS_DROPPED = "steps_dropped"
"""Env-runner metric (reduce "sum"): steps that the sample queue dropped since the `sample()` before."""

_LEARNING_RATE = "_learning_rate"
"""End of the name under which RLlib reports the learning rate of each optimizer, after the optimizer's own."""
_POLICY_OPTIMIZERS = ("policy", "actor")
"""Names of the policy's optimizer where RLlib's learners have several: SAC, TQC and IQL, and DreamerV3."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come; counts on through restarts."""

    iteration: int = 0
    """Training iterations."""
    steps_total: int = 0
    """Environment steps trained on."""
    learner_updates: int = 0
    """Updates of the weights."""
    weights_seq_no: int = 0
    """Policy version."""


class TrainingReport(TrainingIteration):
    """One iteration of training, as the daemon logs it."""

    __slots__ = ()

    @property
    def progress(self) -> Progress:
        """How far the run has come after this iteration."""
        return Progress(self.iteration, self.steps_total, self.learner_updates, self.weights_seq_no)

    def __str__(self) -> str:
        """Lay the report out as the block that the daemon logs, four lines."""
        return (
            f"iteration {self.iteration}   policy version {self.weights_seq_no}   return {_number(self.return_mean)}\n"
            f"  {'   '.join(f'{name} {_number(value)}' for name, value in charted(self).items())}   staleness {self.staleness_mean:.2f}\n"
            f"  steps {self.steps:,}   total {self.steps_total:,}   dropped {self.steps_dropped:,}   "
            f"seconds {self.seconds:.2f}   learning {self.learn_seconds:.2f}\n"
            f"  checkpoint {self.checkpoint_path or 'none yet'}"
        )


def training_report(
    result: Mapping[str, Any],
    before: Progress,
    *,
    seconds: float,
    learn_seconds: float,
    checkpoint: Path | None,
    effective_sample_share: float | None = None,
) -> TrainingReport | None:
    """Read what `Algorithm.train()` returned.

    Args:
        result: RLlib's result dict.
        before: How far the run had come before.
        seconds: Length of the iteration.
        learn_seconds: Length of the learner's update.
        checkpoint: The newest checkpoint.
        effective_sample_share: What was measured of the update, if anything was.

    Returns:
        The report, or None if the learner had no steps to train on: such an iteration doesn't count.
    """
    sampled = result.get("env_runners", {})
    learned = {name: stats for name, stats in result.get("learners", {}).items() if name != "__all_modules__"}
    steps = int(_finite(sampled.get("num_env_steps_sampled")) or 0)  # NaN when nothing was sampled
    if not (steps and learned):
        return None
    # NaN when an asynchronous algorithm had not steps enough for an update
    versions = [int(_finite(stats.get("weights_seq_no")) or 0) for stats in learned.values()]
    version = max(before.weights_seq_no, *versions)
    return TrainingReport(
        iteration=before.iteration + 1,
        weights_seq_no=version,
        return_mean=_finite(sampled.get("episode_return_mean")) if _finite(sampled.get("num_episodes")) else None,
        loss=_mean(learned, "total_loss"),
        kl=_mean(learned, "mean_kl_loss"),
        entropy=_mean(learned, "entropy"),
        steps=steps,
        steps_total=before.steps_total + steps,
        seconds=seconds,
        learn_seconds=learn_seconds,
        learner_updates=before.learner_updates + version - before.weights_seq_no,
        checkpoint_path="" if checkpoint is None else str(checkpoint),
        staleness_mean=(_finite(sampled.get(VERSIONS_BEHIND)) or 0.0) / steps,
        learning_rate=_mean_of(_learning_rate(stats) for stats in learned.values()),
        steps_dropped=int(_finite(sampled.get(STEPS_DROPPED)) or 0),
        effective_sample_share=effective_sample_share,
        **{name: int(_finite(sampled.get(name)) or 0) for name in STEPS_BEHIND},
    )


def restored_report(progress: Progress, checkpoint: Path) -> TrainingReport:
    """Report what a restored checkpoint stands for, until the first iteration after it has one of its own."""
    return TrainingReport(**asdict(progress), checkpoint_path=str(checkpoint))


def _mean(modules: Mapping[str, Mapping[str, Any]], key: str) -> float | None:
    return _mean_of(_finite(stats.get(key)) for stats in modules.values())


def _learning_rate(stats: Mapping[str, Any]) -> float | None:
    """Pick the policy's of a module's optimizers; where none has its name, as with RLlib's default optimizer, the mean of them all."""
    of_optimizers = {name.removesuffix(_LEARNING_RATE): _finite(value) for name, value in stats.items() if name.endswith(_LEARNING_RATE)}
    of_policy = (of_optimizers[name] for name in _POLICY_OPTIMIZERS if name in of_optimizers)
    return next(of_policy, _mean_of(of_optimizers.values()))


def _mean_of(known_or_not: Iterable[float | None]) -> float | None:
    values = [value for value in known_or_not if value is not None]
    return sum(values) / len(values) if values else None


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
