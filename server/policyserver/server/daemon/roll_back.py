"""A roll-back: the serving actors get a checkpoint's state at once, the learner follows at the main thread's safe point."""

from __future__ import annotations

import contextlib
import logging
import pickle
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError
from policyserver.server.daemon.learner_calls import of_learners
from policyserver.server.daemon.learning_rates import take_configured_rates
from policyserver.server.daemon.remote_learners import check_restored
from policyserver.server.daemon.served_state import SERVED_FILE, of_serving

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

    from policyserver.server.processes.rolled_back import RolledBack

logger = logging.getLogger(__name__)


@dataclass
class RollBack:
    """One roll-back that is under way."""

    source: Checkpoint
    """The checkpoint."""
    weights_seq_no: int
    """Policy version under which it is served: higher than all before, so that no version stands for two policies."""
    lineage: int
    """How many roll-backs of the run that makes."""
    is_served: threading.Event = field(default_factory=threading.Event)
    """Set once the actors serve it and the new checkpoint is written, or failed to be."""
    actors: Sequence[RolledBack] = ()
    """What the serving actors said."""
    result: Checkpoint | None = None
    """The new checkpoint, which a start goes on from; None while it could not be written."""

    @property
    def served_version(self) -> int:
        """Policy version under which the actors serve it: the highest that one of them answered with."""
        return max([self.weights_seq_no, *(actor.weights_seq_no for actor in self.actors)])


class RollBackUnderWayError(RuntimeError):
    """Another roll-back is under way."""


class NotWrittenError(CheckpointError):
    """The roll-back is served and the learner follows, but it could not be written as the newest checkpoint."""

    def __init__(self, order: RollBack, error: CheckpointError) -> None:
        """Say so of a roll-back, and why."""
        super().__init__(
            f"{order.source.path} is served as policy version {order.served_version} and the learner follows, but it could not be written "
            f"as the newest checkpoint: {error}; make room, then save"
        )
        self.order = order


def state_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Read what is served from a checkpoint, which must be known to be whole and ours.

    Raises:
        CheckpointError: It is not there, because an older version wrote the checkpoint.
    """
    try:
        state: dict[str, Any] = pickle.loads((checkpoint.path / SERVED_FILE).read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{checkpoint.path}: expected {SERVED_FILE} in it, from which it is served at once; an older version wrote it without. Choose "
            "a newer one, or start the server with this one as the newest"
        ) from error
    return state


def check_served(order: RollBack) -> None:
    """Log an error where an actor serves other weights than the checkpoint's."""
    for actor in order.actors:
        if order.source.weights_sha256 != actor.weights_sha256:
            logger.error(
                "a serving actor serves weights of SHA-256 %s after a roll-back to %s, whose weights have %s",
                actor.weights_sha256, order.source.path, order.source.weights_sha256,
            )  # fmt: skip


def follow(algorithm: Algorithm, order: RollBack, weights_seq_no: int, *, keep_replay: bool) -> None:
    """Have the learner go on from where the actors are. What it learned since then is gone, and what it was about to push, too."""
    of_learners(algorithm.learner_group, _settle)
    restore_under(algorithm, order.result or order.source, weights_seq_no)
    if not keep_replay and algorithm.local_replay_buffer is not None:
        algorithm.local_replay_buffer = algorithm._create_local_replay_buffer_if_necessary(algorithm.config)


def count_from(algorithm: Algorithm, lineage: int) -> None:
    """Give the env runners the learner's weights with a lineage, from which on RLlib's states count again."""
    state = algorithm.learner_group.get_state(components="learner/rl_module", inference_only=True)["learner"] | {"lineage": lineage}
    if algorithm.config.num_env_runners and algorithm.env_runner is not None:
        algorithm.env_runner.set_state(state)
    of_serving(algorithm, lambda runner: runner.set_state(state))


def restore_under(algorithm: Algorithm, checkpoint: Checkpoint, weights_seq_no: int) -> None:
    """Restore a checkpoint's learner, filters and counters, under a policy version that may be higher than the one it was made with.

    The learning rate is that of the configuration.

    Raises:
        CheckpointError: A learner in a process of its own has other weights after it.
        LearnerCallError: One did not do what all were to do.
    """
    algorithm.restore_from_path(str(checkpoint.path))
    of_learners(algorithm.learner_group, take_configured_rates, steps_total=checkpoint.progress.steps_total)
    of_learners(algorithm.learner_group, _take_version, weights_seq_no=weights_seq_no)
    check_restored(algorithm.learner_group, checkpoint)


def learner_version(algorithm: Algorithm) -> int:
    """Return the policy version of a learner in this process, whatever it is doing; 0 for learners elsewhere."""
    group = algorithm.learner_group
    return int(group._learner._weights_seq_no) if group.is_local else 0


def _take_version(learner: Any, *, weights_seq_no: int) -> None:
    learner._weights_seq_no = weights_seq_no


def _settle(learner: Any) -> None:
    """Wait until the thread of an IMPALA or APPO learner has no batch, and let go of the weights that it has for the env runners.

    Its batches are counted by RLlib, so they are trained on rather than dropped. RLlib's circular buffer can't be waited for.
    """
    waiting = getattr(learner, "_learner_thread_in_queue", None)
    if isinstance(waiting, queue.Queue):
        waiting.join()
    if waiting is not None:
        with contextlib.suppress(queue.Empty):
            learner._learner_state_queue.get_nowait()
        learner._learner_state = None
