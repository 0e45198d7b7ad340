"""Bounds how long an update of IMPALA or APPO waits for episodes that are still on the nodes of serving actors.

Their learners fetch them there. Ray would wait for an actor that was cut off until it gives its node up, which takes a minute, and
learning would stand still with it.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.learner_calls import of_learners

if TYPE_CHECKING:
    from ray.rllib.core.learner.learner_group import LearnerGroup

logger = logging.getLogger(__name__)

_AFTER_A_LOSS_S = 0.5
"""Longest wait once episodes did not come: those after them may be of the same actor."""
_LOSS_COUNTS_S = 60.0


def bound_fetches(learners: LearnerGroup, longest_s: float) -> None:
    """Have all learners, wherever they are, do without episodes that do not come in time; their steps are lost.

    Raises:
        LearnerCallError: One did not follow.
    """
    of_learners(learners, _bound, longest_s=longest_s, is_alone=len(learners) < 2)


def _bound(learner: Any, *, longest_s: float, is_alone: bool) -> None:
    update = learner.update
    lost_s = -_LOSS_COUNTS_S

    @functools.wraps(update)
    def bounded(training_data: Any, **arguments: Any) -> Any:
        nonlocal lost_s
        import ray

        if references := training_data.episodes_refs:
            patience_s = longest_s if time.monotonic() - lost_s > _LOSS_COUNTS_S else _AFTER_A_LOSS_S
            there, missing = ray.wait(references, num_returns=len(references), timeout=patience_s, fetch_local=True)
            if missing and (there or is_alone):  # learners of a group update together: one that has none can't leave it out
                lost_s = time.monotonic()
                logger.warning(
                    "an update does without %d of %d samples, which did not come from their nodes", len(missing), len(references)
                )
                if not there:
                    return {}
                training_data.episodes_refs = there
        return update(training_data=training_data, **arguments)

    learner.update = bounded
