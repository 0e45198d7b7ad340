"""Asks the policy server for actions: one call for all rows of a block that want one."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.common.errors import EpisodeError, HandshakeError, PolicyServerError, ServerEndedError
from policyserver.pipelines.events import ActionEvent, EndEvent, SignalEvent
from policyserver.pipelines.fallback import NO_ANSWER, STEP_KINDS, Fallback, FallbackReporter, row_errors
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.step_kinds import StepKind
from policyserver.pipelines.nodes.pipeline_node import PipelineNode, Wiring
from policyserver.pipelines.nodes.signal_node import ended_episodes
from policyserver.pipelines.played_block import FallbackStep, PlayedBlock
from policyserver.pipelines.replay.turn import decided
from policyserver.pipelines.runtime.inbox import push_together
from policyserver.pipelines.runtime.latency import LatencyHistogram

logger = logging.getLogger(__name__)

_RETRY_S = 1.0
"""Seconds from one attempt to begin episodes to the next, while no row of a block has a server."""

Errors = dict[int, PolicyServerError]
"""Errors by row of the block."""


class PolicyNode(PipelineNode[SignalEvent]):
    """Gets an action for each row, or takes the fallback when no action comes in time."""

    def __init__(self, name: str, wiring: Wiring) -> None:
        """Make the node; see `Node`. The policy raises when an action takes longer than its deadline."""
        super().__init__(name, wiring)
        self._fallback: Fallback = wiring.config.policy.fallback
        self._training_enabled = wiring.config.training_enabled
        self._in_fallback = False
        self._waits_for_server = False
        self.reporter = FallbackReporter(wiring.policy)
        """Tells the server of fallback actions."""
        self.latency = LatencyHistogram()
        """Durations of the calls, each counted once for every action it asked for; waits for the learner apart."""
        self.learner_wait_s = 0.0
        """Seconds that the calls waited for the learner, which had all the steps that it wanted."""
        self.fallbacks = 0
        """Fallback actions taken."""

    def _process(self, batch: list[SignalEvent]) -> None:
        actions: list[ActionEvent] = []
        lost: list[EndEvent] = []
        for event in batch:
            if not event.played.abandoned:
                action, end = self._decide(event.played, event.rows)
                actions.append(action)
                lost += end
        if not lost:
            self._routes.portfolio.push_many(actions)
            return
        push_together([*self._routes.portfolio.shares(actions), *self._routes.episode.shares(lost)])

    def _decide(self, played: PlayedBlock, rows: IntArray) -> tuple[ActionEvent, list[EndEvent]]:
        """Get the actions of a block's rows; return them, and the episodes that are lost."""
        asked = rows
        rows = self._begin(played, rows)
        errors = self._report(played, rows)
        asking = rows if not errors else rows[[row not in errors for row in rows.tolist()]]
        answers: npt.NDArray[Any] | None = None
        if len(asking):
            answers, refused = self._ask(played, asking)
            errors |= refused
        if answers is not None and len(asking) == len(rows) and not errors:
            return self._accept(played, asked, rows, answers), []
        actions = played.block.keeping(rows)
        weights_seq_nos = np.full(len(rows), self._policy.weights_seq_no)
        if answers is not None:
            versions = self._policy.answered_by()
            place = {row: i for i, row in enumerate(rows.tolist())}
            for i, row in enumerate(asking.tolist()):
                if row not in errors:
                    actions[place[row]], weights_seq_nos[place[row]] = answers[i], versions[i]
        return self._settle(played, asked, rows, actions, weights_seq_nos, errors)

    # Asking --------------------------------------------------------------------------------------------------------------------------

    def _begin(self, played: PlayedBlock, rows: IntArray) -> IntArray:
        """Let the client know of new episodes; return the rows that may ask. New ones wait for a server, and none but they do."""
        if not played.has_new:
            return rows
        new = rows[~played.is_known[rows]]
        if not len(new):
            return rows
        try:
            self._policy.start_episodes(played.ids_of(new), self._training_enabled)
        except (HandshakeError, ServerEndedError) as error:  # it will never be the right server, or none at all
            self._run_state.fail(error)
            return rows[played.is_known[rows]]
        except NO_ANSWER as error:
            if not self._waits_for_server:
                logger.warning("%s: %d episodes wait for the server (%s)", self.name, len(new), error)
            self._waits_for_server = True
            if len(new) == len(rows):
                self._run_state.stopping.wait(_RETRY_S)
            return rows[played.is_known[rows]]
        if self._waits_for_server:
            logger.warning("%s: the server is there, %d episodes begin", self.name, len(new))
            self._waits_for_server = False
        played.is_known[new] = True
        return rows

    def _report(self, played: PlayedBlock, rows: IntArray) -> Errors:
        """Tell the server of fallback steps; return the rows of which it could not be told all."""
        if not played.unreported:
            return {}
        pending = {played.ids[row]: played.unreported[row] for row in rows.tolist() if row in played.unreported}
        failed = self.reporter.report(pending)
        errors = {}
        for row in rows.tolist():
            if row in played.unreported and not played.unreported[row]:
                del played.unreported[row]
                played.is_started[row] = True
            if played.ids[row] in failed:
                errors[row] = failed[played.ids[row]]
        return errors

    def _ask(self, played: PlayedBlock, rows: IntArray) -> tuple[npt.NDArray[Any], Errors]:
        """Ask for the actions of rows in one call; return them with the errors of those that got none."""
        began = time.perf_counter()
        try:
            asked = played.turn.asked
            observations = asked[2] if asked and len(asked[0]) == len(rows) else played.observations[rows]
            return self._policy.get_actions(played.ids_of(rows), observations), {}
        except PolicyServerError as error:
            errors = {int(rows[place]): of for place, of in row_errors(error, len(rows)).items()}
            partial = getattr(error, "actions", None)
            return played.block.keeping(rows) if partial is None else partial, errors
        finally:
            waited_s = self._policy.take_learner_wait_s()  # before the server was asked, so it is no part of its answer
            played.turn.call_s = seconds = max(0.0, time.perf_counter() - began - waited_s)
            self.latency.add(seconds, len(rows))
            self.learner_wait_s += waited_s

    # Deciding ------------------------------------------------------------------------------------------------------------------------

    def _accept(self, played: PlayedBlock, asked: IntArray, rows: IntArray, actions: npt.NDArray[Any]) -> ActionEvent:
        """Take the policy's decisions of rows, each of which has one."""
        if self._in_fallback:
            self._note_fallbacks([])
        return self._decided(played, asked, rows, actions, np.zeros(len(rows), dtype=np.bool_), self._policy.answered_by(), rows[:0])

    def _settle(
        self, played: PlayedBlock, asked: IntArray, rows: IntArray, actions: npt.NDArray[Any], weights_seq_nos: IntArray, errors: Errors
    ) -> tuple[ActionEvent, list[EndEvent]]:
        """Take the decisions of rows: the policy's, the fallback, or the end of an episode that the server has lost."""
        falls_back = np.zeros(len(rows), dtype=np.bool_)
        lost: list[EndEvent] = []
        gone = rows[:0]
        if errors:
            place = {row: i for i, row in enumerate(rows.tolist())}
            gone = np.array(sorted(row for row, error in errors.items() if isinstance(error, EpisodeError)), dtype=np.int64)
            fallbacks = [row for row, error in errors.items() if isinstance(error, NO_ANSWER)]
            for error in errors.values():
                if not isinstance(error, (EpisodeError, *NO_ANSWER)):
                    raise error
            if len(gone):
                logger.warning("%s: %d episodes are lost (%s)", self.name, len(gone), errors[int(gone[0])])
                lost.append(EndEvent(tuple(ended_episodes(played, gone, "lost", "lost"))))
                played.vacate(gone)
            falls_back[[place[row] for row in fallbacks]] = True
            actions = self._fall_back(played, rows, actions, falls_back)
            keeps = np.array([row not in set(gone.tolist()) for row in rows.tolist()], dtype=np.bool_)
            rows, actions, falls_back, weights_seq_nos = rows[keeps], actions[keeps], falls_back[keeps], weights_seq_nos[keeps]
            self._note_fallbacks([errors[row] for row in fallbacks])
        elif self._in_fallback:
            self._note_fallbacks([])
        return self._decided(played, asked, rows, actions, falls_back, weights_seq_nos, gone), lost

    def _decided(
        self,
        played: PlayedBlock,
        asked: IntArray,
        rows: IntArray,
        actions: npt.NDArray[Any],
        falls_back: npt.NDArray[np.bool_],
        weights_seq_nos: IntArray,
        gone: IntArray,
    ) -> ActionEvent:
        """Keep the decisions of rows, and those of the rows that asked in the block's turn."""
        if played.has_new:
            played.is_started[rows[~falls_back]] = True
            played.is_new[rows] = False
            played.has_new = not played.is_started[played.playing].all()
        kinds = None
        if np.count_nonzero(falls_back):
            kinds = np.where(falls_back, STEP_KINDS[self._fallback], StepKind.ACT).astype(np.int8)
        if len(rows):
            played.taken.add(rows, actions, kinds)
            played.decision.take(rows, played.block.view, actions, falls_back, weights_seq_nos, self.name)
        if len(asked):
            played.turn.decided = decided(asked, rows, actions, falls_back, weights_seq_nos, gone)
        return ActionEvent(played, rows, actions, kinds)

    def _fall_back(
        self, played: PlayedBlock, rows: IntArray, actions: npt.NDArray[Any], falls_back: npt.NDArray[np.bool_]
    ) -> npt.NDArray[Any]:
        """Return the actions with those that fallbacks are reported as, and keep these for the report."""
        late = rows[falls_back]
        if not len(late):
            return actions
        block = played.block
        flattens = self._fallback == "flatten"
        has_position = block.view.accounts.position[late].any(axis=1)
        reported = block.keeping(late)
        if flattens:
            closing = block.closing(late)
            reported[has_position] = closing[has_position]
        actions = np.array(actions)
        actions[falls_back] = reported
        for place, row in enumerate(late.tolist()):
            step = FallbackStep(played.observations[row].copy(), reported[place].copy())
            played.unreported.setdefault(row, []).append(step)
        return actions

    def _note_fallbacks(self, errors: list[PolicyServerError]) -> None:
        """Count fallback actions, and log when they begin and end."""
        self.fallbacks += len(errors)
        if errors and not self._in_fallback:
            logger.warning("%s: no action in time, falling back to %s (%s)", self.name, self._fallback, errors[0])
        elif self._in_fallback and not errors:
            logger.warning("%s: actions come again, %d fallback actions so far", self.name, self.fallbacks)
        self._in_fallback = bool(errors)
