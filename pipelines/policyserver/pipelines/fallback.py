"""The fallback action when no action comes in time, and its report to the server.

A fallback step is kept with its episode, together with its reward, until the server can be told: first of the action, by `log_action`, then
of its reward, by `log_returns`. Only then may the episode ask for an action again. So the server learns from what was really done, in the
right order, and no reward is counted that the server does not get.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from policyserver.client import BatchError
from policyserver.common.errors import ActionTimeoutError, PolicyServerError, ServerOverloadedError, ServerUnavailableError
from policyserver.monitoring.action import Action
from policyserver.pipelines.account import Account
from policyserver.pipelines.events import Episode
from policyserver.pipelines.run_state import ExactSum
from policyserver.pipelines.serving import PolicyService

Fallback = Literal["hold", "flatten"]
"""Keep the position, or close it at the next open."""

NO_ANSWER = (ActionTimeoutError, ServerUnavailableError, ServerOverloadedError)
"""Errors that leave the episode as it was: its next step may succeed."""


def reported_action(fallback: Fallback, account: Account) -> int:
    """Return the action that a fallback is reported as: hold, or the direction in which flattening trades."""
    if fallback == "hold" or account.position == 0.0:
        return Action.HOLD
    return Action.SELL if account.position > 0 else Action.BUY


def row_errors(error: PolicyServerError, count: int) -> dict[int, PolicyServerError]:
    """Return the errors of single rows of a batched call by row; an error of the whole call is one of each row."""
    return dict(error.errors) if isinstance(error, BatchError) else dict.fromkeys(range(count), error)


class FallbackReporter:
    """Reports fallback steps to the server. Belongs to one thread."""

    def __init__(self, policy: PolicyService) -> None:
        """Report through `policy`."""
        self._policy = policy
        self.ledger = ExactSum()
        """Rewards of fallback steps that the server has been told."""
        self.reported = 0
        """Fallback steps that the server has been told."""

    def report(self, episodes: Sequence[Episode]) -> dict[Episode, PolicyServerError]:
        """Report every unreported step of the episodes, the oldest step of each in one call, then the next.

        Returns:
            The episodes whose steps could not all be reported, with the error that prevented it.
        """
        failed: dict[Episode, PolicyServerError] = {}
        pending = [episode for episode in episodes if episode.unreported]
        while pending:
            errors = self._log_oldest(pending)
            for row, episode in enumerate(pending):
                if row in errors:
                    failed[episode] = errors[row]
                    continue
                step = episode.unreported.pop(0)
                self.reported += 1
                if step.reward is not None:
                    self._policy.log_returns_batch([episode.id], [step.reward])
                    self.ledger.add(step.reward)
            pending = [episode for episode in pending if episode.unreported and episode not in failed]
        return failed

    def _log_oldest(self, episodes: Sequence[Episode]) -> dict[int, PolicyServerError]:
        """Report the oldest step of each episode; return the errors by row."""
        steps = [episode.unreported[0] for episode in episodes]
        observations = np.stack([step.observation for step in steps])
        actions = np.array([step.action for step in steps], dtype=np.int64)
        try:
            self._policy.log_actions([episode.id for episode in episodes], observations, actions)
        except PolicyServerError as error:
            return row_errors(error, len(episodes))
        return {}
