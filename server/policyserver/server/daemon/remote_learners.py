"""Learners in processes of their own (`algorithm.learners.num_learners`), on this machine or on others of a cluster.

RLlib drops the answers by which they say that a restore failed, and calls a learner no more after one error, whatever it was.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from policyserver.server.config.daemon_config import LearnerConfig
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError
from policyserver.server.daemon.learner_calls import LearnerCallError, of_learners
from policyserver.server.daemon.served_state import served_state
from policyserver.server.processes.processor_share import lower_priority
from policyserver.server.processes.weights_sum import sha256_of_weights

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.core.learner.learner_group import LearnerGroup

_ANSWER_S = 5.0
"""Longest wait for a learner that has failed to say that it is there."""


def learner_resources(built: AlgorithmConfig) -> dict[str, float]:
    """Return the Ray resources that one learner takes, as RLlib asks for them."""
    gpus = max(0.0, float(built.num_gpus_per_learner))
    cpus = built.num_cpus_per_learner
    each = {"CPU": float(not gpus) if cpus == "auto" else float(cpus), "GPU": gpus, **(built.custom_resources_per_learner or {})}
    return {name: amount for name, amount in each.items() if amount}


def share_the_machine(learners: LearnerGroup, config: LearnerConfig) -> None:
    """Have learners in processes of their own give way to serving actors, as the daemon does.

    Raises:
        LearnerCallError: One did not.
    """
    if not learners.is_local:
        of_learners(learners, _give_way, threads=config.threads, niceness=config.niceness)


def keep_in_service(learners: LearnerGroup) -> None:
    """Have learners in processes of their own called again after an update that failed, as the daemon's own is.

    From then on an update raises LearnerCallError if one of them does not answer.
    """
    if learners.is_local:
        return
    update = learners.update

    @functools.wraps(update)
    def of_all(*arguments: Any, **named: Any) -> Any:
        _bring_back(learners)
        try:
            return update(*arguments, **named)
        except Exception:
            _bring_back(learners)
            raise

    learners.update = of_all


def state_to_save(algorithm: Algorithm) -> dict[str, Any]:
    """Return the state that makes an env runner serve what the learner has now, for a checkpoint.

    Raises:
        CheckpointError: A learner in a process of its own is gone.
    """
    try:
        return served_state(algorithm)
    except Exception as error:  # of Ray, or RLlib's assertion that all of them are there
        raise CheckpointError(f"the learner's weights can't be read: expected all learners to answer, received {error!r}") from error


def check_restored(learners: LearnerGroup, checkpoint: Checkpoint) -> None:
    """Look whether learners in processes of their own have a checkpoint's weights.

    Raises:
        CheckpointError: One has others.
        LearnerCallError: One does not answer.
    """
    if learners.is_local or not checkpoint.weights_sha256:
        return
    sums = of_learners(learners, _weights_sum)
    if any(each != checkpoint.weights_sha256 for each in sums):
        raise CheckpointError(
            f"{checkpoint.path}: expected all {len(sums)} learners to have its weights after the restore, of SHA-256 "
            f"{checkpoint.weights_sha256}, received {', '.join(sums)}; why a learner could not read it is in the log of its process"
        )


def _bring_back(learners: LearnerGroup) -> None:
    manager = learners._worker_manager
    away = [index for index in manager.actor_ids() if not manager.is_actor_healthy(index)]
    if not away:
        return
    answers = manager.foreach_actor(
        lambda learner: None, healthy_only=False, remote_actor_ids=away, timeout_seconds=_ANSWER_S, mark_healthy=True
    )
    if missing := len(away) - sum(answer.ok for answer in answers):
        raise LearnerCallError(
            f"expected {len(learners)} learners, {missing} of them do not answer; the daemon's next start makes new ones"
        )


def _give_way(learner: Any, *, threads: int, niceness: int) -> None:
    import torch

    torch.set_num_threads(threads)
    lower_priority(niceness)


def _weights_sum(learner: Any) -> str:
    (weights,) = learner.get_state(components="rl_module", inference_only=True)["rl_module"].values()
    return sha256_of_weights(weights)
