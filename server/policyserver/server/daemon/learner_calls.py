"""Calls of all learners, none of which may be missed: RLlib gives the error of a learner elsewhere as an answer among the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.core.learner.learner_group import LearnerGroup


class LearnerCallError(RuntimeError):
    """A learner did not do what all were to do."""


def of_learners(group: LearnerGroup, call: Callable[..., Any], **arguments: Any) -> list[Any]:
    """Call a function with each learner, and return what they answer.

    Raises:
        LearnerCallError: One failed, is dead, or is no longer called by RLlib.
    """
    answers = list(group.foreach_learner(call, **arguments))
    failures = [answer.get() for answer in answers if not answer.ok]
    expected = max(len(group), 1)
    if failures or len(answers) < expected:
        received = f"{len(answers) - len(failures)}; one said {failures[0]!r}" if failures else f"{len(answers)}"
        raise LearnerCallError(
            f"{getattr(call, '__name__', 'call')}: expected the answers of {expected} learners, received {received}"
        ) from (failures[0] if failures else None)
    return [answer.get() for answer in answers]
