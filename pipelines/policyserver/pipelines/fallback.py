"""What is done when no action comes in time, and how the server hears of it later.

A fallback step is kept with its row, together with its reward, until the server can be told: first that the action was taken, by
`log_action`, then what it was worth, by `log_returns`. Only then may the episode ask for an action again. So the server learns from what
was really done, in the right order, and no reward is counted that it does not get.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from policyserver.client import BatchError
from policyserver.common.errors import ActionTimeoutError, PolicyServerError, ServerOverloadedError, ServerUnavailableError
from policyserver.pipelines.market.step_kinds import StepKind
from policyserver.pipelines.played_block import FallbackStep
from policyserver.pipelines.run_state import ExactSum
from policyserver.pipelines.serving import PolicyService

Fallback = Literal["hold", "flatten"]
"""Give no order and cancel none; or cancel all and close the positions at the next open."""

STEP_KINDS: dict[Fallback, StepKind] = {"hold": StepKind.HOLD, "flatten": StepKind.FLATTEN}
"""What a step without an action in time does."""

NO_ANSWER = (ActionTimeoutError, ServerUnavailableError, ServerOverloadedError)
"""Errors that leave the episode as it was: its next step may succeed."""


def row_errors(error: PolicyServerError, count: int) -> dict[int, PolicyServerError]:
    """Return the errors of single rows of a batched call by row; an error of the whole call is one of each row."""
    return dict(error.errors) if isinstance(error, BatchError) else dict.fromkeys(range(count), error)


class FallbackReporter:
    """Tells the server what was done without it. Belongs to one thread."""

    def __init__(self, policy: PolicyService) -> None:
        """Report through `policy`."""
        self._policy = policy
        self.ledger = ExactSum()
        """Rewards of fallback steps that the server has been told."""
        self.reported = 0
        """Fallback steps that the server has been told."""

    def report(self, unreported: Mapping[str, list[FallbackStep]]) -> dict[str, PolicyServerError]:
        """Report every step of some episodes, the oldest step of each in one call, then the next; what is reported leaves its list.

        Returns:
            The episodes whose steps could not all be reported, with the error that prevented it.
        """
        failed: dict[str, PolicyServerError] = {}
        pending = [episode for episode, steps in unreported.items() if steps]
        while pending:
            errors = self._log_oldest(pending, [unreported[episode][0] for episode in pending])
            for row, episode in enumerate(pending):
                if row in errors:
                    failed[episode] = errors[row]
                    continue
                step = unreported[episode].pop(0)
                self.reported += 1
                if step.reward is not None:
                    self._policy.log_returns_batch([episode], [step.reward])
                    self.ledger.add(step.reward)
            pending = [episode for episode in pending if unreported[episode] and episode not in failed]
        return failed

    def _log_oldest(self, episodes: Sequence[str], steps: Sequence[FallbackStep]) -> dict[int, PolicyServerError]:
        """Report one step of each episode; return the errors by row."""
        observations = np.stack([step.observation for step in steps])
        actions = np.stack([np.asarray(step.action) for step in steps])
        try:
            self._policy.log_actions(episodes, observations, actions)
        except PolicyServerError as error:
            return row_errors(error, len(episodes))
        return {}
