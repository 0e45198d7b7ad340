"""Asks the policy server for actions: one call for all episodes whose signals have arrived."""

from __future__ import annotations

import logging
import time

import numpy as np

from policyserver.common.errors import EpisodeError, PolicyServerError
from policyserver.pipelines.events import ActionEvent, Decision, EndEvent, Episode, FallbackStep, SignalEvent
from policyserver.pipelines.fallback import NO_ANSWER, FallbackReporter, reported_action, row_errors
from policyserver.pipelines.nodes.pipeline_node import PipelineNode, Wiring
from policyserver.pipelines.runtime.inbox import push_together
from policyserver.pipelines.runtime.latency import LatencyHistogram

logger = logging.getLogger(__name__)


class PolicyNode(PipelineNode[SignalEvent]):
    """Gets an action for each signal, or takes the fallback if none comes in time."""

    def __init__(self, name: str, wiring: Wiring) -> None:
        """Make the node; see `Node`."""
        super().__init__(name, wiring)
        self._fallback = wiring.config.policy.fallback
        self._in_fallback = False
        self.reporter = FallbackReporter(wiring.policy)
        """Tells the server of fallback actions."""
        self.latency = LatencyHistogram()
        """Durations of the calls, each counted once for every action it asked for; waits for the learner apart."""
        self.learner_wait_s = 0.0
        """Seconds that the calls waited for the learner, which had all the steps that it wanted."""
        self.fallbacks = 0
        """Fallback actions taken."""

    def _process(self, batch: list[SignalEvent]) -> None:
        signals = [event for event in batch if not event.episode.abandoned]
        errors = dict(self.reporter.report([event.episode for event in signals]))
        asking = [event for event in signals if event.episode not in errors]
        actions: dict[Episode, int] = {}
        if asking:
            answers, refused = self._ask(asking)
            for row, event in enumerate(asking):
                if row in refused:
                    errors[event.episode] = refused[row]
                else:
                    actions[event.episode] = answers[row]
        self._pass_on(signals, actions, errors)

    def _ask(self, signals: list[SignalEvent]) -> tuple[list[int], dict[int, PolicyServerError]]:
        """Ask for the actions of all signals in one call; return them with the errors of the rows that got none."""
        ids = [event.episode.id for event in signals]
        observations = np.array([event.observation for event in signals])
        began = time.perf_counter()
        try:
            answers = self._policy.get_actions(ids, observations)
            return answers.tolist(), {}
        except PolicyServerError as error:
            errors = row_errors(error, len(signals))
            partial = getattr(error, "actions", None)
            return [0] * len(signals) if partial is None else partial.tolist(), errors
        finally:
            waited_s = self._policy.take_learner_wait_s()  # comes before the question, so it is not part of the latency
            self.latency.add(max(0.0, time.perf_counter() - began - waited_s), len(signals))
            self.learner_wait_s += waited_s

    def _pass_on(self, signals: list[SignalEvent], actions: dict[Episode, int], errors: dict[Episode, PolicyServerError]) -> None:
        """Send the decisions to the portfolio, and lost episodes to their end."""
        version = self._policy.weights_seq_no
        decided: list[ActionEvent] = []
        lost: list[EndEvent] = []
        fallbacks: list[PolicyServerError] = []
        for event in signals:
            episode = event.episode
            error = errors.get(episode)
            if isinstance(error, EpisodeError):
                lost.append(EndEvent(episode, "lost"))
                continue
            if error is None:
                action = actions[episode]
                episode.started = True
            elif isinstance(error, NO_ANSWER):
                action = reported_action(self._fallback, episode.account)
                episode.unreported.append(FallbackStep(event.observation, action))
                fallbacks.append(error)
            else:
                raise error
            bar = event.bar
            episode.decision = Decision(bar.index, bar.close, event.prediction, action, error is not None, version, self.name)
            decided.append(ActionEvent(episode, episode.decision))
        self._note_fallbacks(fallbacks)
        if lost:
            logger.warning("%s: %d episodes are lost (%s)", self.name, len(lost), errors[lost[0].episode])
        push_together([*self._routes.portfolio.shares(decided), *self._routes.episode.shares(lost)])

    def _note_fallbacks(self, errors: list[PolicyServerError]) -> None:
        """Count fallback actions, and log when they begin and end."""
        self.fallbacks += len(errors)
        if errors and not self._in_fallback:
            logger.warning("%s: no action in time, falling back to %s (%s)", self.name, self._fallback, errors[0])
        elif self._in_fallback and not errors:
            logger.warning("%s: actions come again, %d fallback actions so far", self.name, self.fallbacks)
        self._in_fallback = bool(errors)
