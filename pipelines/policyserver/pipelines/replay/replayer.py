"""Plays a recorded run again: the pipeline's own nodes, one after the other, in the order that the event log tells.

The nodes ask a `RecordedPolicy`, which answers what was recorded: actions, answers that were late, episodes that were lost. All else is
made anew (prices, fills, forecasts, observations, rewards, ends), and compared group by group of each turn.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.client import BatchError
from policyserver.common.errors import ActionTimeoutError, EpisodeLostError, PolicyServerError, ServerUnavailableError
from policyserver.monitoring.sink import MultiSink
from policyserver.pipelines.config import NodesConfig, PipelineConfig
from policyserver.pipelines.events import EndEvent, OpenEvent
from policyserver.pipelines.forecast.state_file import ForecastState
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.played_block import Observations, PlayedBlock
from policyserver.pipelines.prices import PriceSource
from policyserver.pipelines.replay.columns import ActionType
from policyserver.pipelines.replay.comparison import NotReplayableError, compare
from policyserver.pipelines.replay.turn import StepOutcome, Turn
from policyserver.pipelines.runtime.inbox import NodeConfig

_NO_TURN = Turn(-1)


class RecordedPolicy:
    """Answers for each turn what was recorded. See `PolicyService`."""

    def __init__(self, action: ActionType) -> None:
        """Answer nothing before the first turn."""
        self.turn = _NO_TURN
        """Whose answers are given."""
        self._action = action

    @property
    def weights_seq_no(self) -> int:
        """Newest policy version that was known: the one that is recorded with a fallback."""
        if not self.turn.decided:
            return 0
        outcomes, versions, _ = self.turn.decided
        late = versions[outcomes == StepOutcome.FALLBACK]
        return int(late[0]) if len(late) else 0

    def start_episodes(self, episodes: Sequence[str], training_enabled: bool) -> list[str]:
        """Let episodes begin, unless they waited for a server."""
        if (self.turn.decided[0] == StepOutcome.WAITS).any():
            raise ServerUnavailableError("no server, as recorded")
        return list(episodes)

    def get_actions(self, episode_ids: Sequence[str], observations: Observations) -> Any:
        """Return the recorded actions.

        Raises:
            BatchError: The answers of some were late, or the server had lost them.
        """
        outcomes, _, flat = self.turn.decided
        asked = outcomes != StepOutcome.WAITS
        actions = self._action.of(flat[asked])
        errors = self.errors(outcomes[asked])
        if errors:
            raise BatchError(len(episode_ids), np.array(actions), errors)
        return actions

    def errors(self, outcomes: npt.NDArray[Any]) -> dict[int, PolicyServerError]:
        """Return what a call with some outcomes raises, by row."""
        errors: dict[int, PolicyServerError] = {}
        for place in np.flatnonzero(outcomes != StepOutcome.POLICY).tolist():
            is_lost = outcomes[place] == StepOutcome.LOST
            errors[place] = EpisodeLostError("lost, as recorded") if is_lost else ActionTimeoutError("late, as recorded")
        return errors

    def answered_by(self) -> npt.NDArray[np.int64]:
        """Return the recorded policy versions of the rows that asked."""
        outcomes, versions, _ = self.turn.decided
        asked: npt.NDArray[np.int64] = versions[outcomes != StepOutcome.WAITS]
        return asked

    def take_learner_wait_s(self) -> float:
        """Return 0."""
        return 0.0

    def log_actions(self, episode_ids: Sequence[str], observations: Observations, actions: npt.NDArray[Any]) -> None:
        """Take what was done without the server."""

    def log_returns_batch(self, episode_ids: Sequence[str], rewards: Sequence[float]) -> None:
        """Take rewards."""

    def end_episodes(
        self, episode_ids: Sequence[str], observations: Observations, truncated: npt.NDArray[np.bool_], *, timeout_s: float | None = None
    ) -> None:
        """Take ends."""

    def end(self, events: Sequence[EndEvent]) -> None:
        """Take the ends of a turn."""


class Replayer:
    """Plays the turns of a run again, and compares each with the recorded one."""

    def __init__(
        self,
        config: PipelineConfig,
        source: PriceSource,
        policy: RecordedPolicy,
        action: ActionType,
        *,
        exact: bool,
        start: ForecastState | None = None,
    ) -> None:
        """Make the nodes of the run; they get no threads.

        Args:
            config: The run's settings.
            source: Its prices.
            policy: Answers for the server.
            action: What the actions are made of.
            exact: Whether bits are compared, or numbers as far as versions and processors make them differ.
            start: What the forecaster begins with.
        """
        alone = dataclasses.replace(
            config,
            nodes=NodesConfig(
                signal_threads=1, policy_threads=1, reward_threads=1, inbox=NodeConfig(max_restarts=0), blocks=config.nodes.blocks
            ),
            episodes=dataclasses.replace(config.episodes, steps=None),  # the log says when the run ended
        )
        self._policy = policy
        self._action = action
        self._exact = exact
        self._pipeline = Pipeline(alone, policy, MultiSink(), source=source, start=start)
        self._pipeline.run.stopping = _Stopping()
        self._nodes = self._pipeline.nodes
        self._events: dict[int, Any] = {}
        self._blocks: dict[int, PlayedBlock] = {}
        self.turns = self.steps = self.actions = 0
        """Turns replayed; rewards that were compared; actions of the policy."""

    def replay(self, recorded: Turn) -> Turn:
        """Play a turn again; return what it is now.

        Raises:
            DifferentError: It differs from the recorded one.
        """
        self._policy.turn = recorded
        number = recorded.block
        if recorded.opened:
            self._open(recorded)
        played, stopping = self._blocks[number], self._pipeline.run.stopping
        if not recorded.begun:
            stopping.set()  # vacant rows stay vacant
        self._nodes["market"].push_many([self._events.pop(number)])
        self._nodes["market"].process_waiting()
        stopping.clear()
        turn = played.turn  # that which Market has begun
        self._check(recorded, turn, "opened", "begun")
        for name in ("execution", "reward"):
            self._nodes[name].process_waiting()
        self._check(recorded, turn, "marked", "fills", "orders")
        self.turns += 1
        self.steps += len(recorded.marked[0]) if recorded.marked else 0
        if recorded.is_abandoned:
            self._drain("signal")
            return turn
        if recorded.stopped:
            stopping.set()
        self._nodes["signal"].process_waiting()
        stopping.clear()
        self._check(recorded, turn, "asked", "stopped")
        if recorded.stopped:
            self._drain("policy")
        else:
            for name in ("policy", "portfolio"):
                self._nodes[name].process_waiting()
            self._check(recorded, turn, "decided")
            self.actions += int((recorded.decided[0] == StepOutcome.POLICY).sum()) if recorded.decided else 0
            for event in self._drain("market"):
                self._events[event.played.number] = event
        return turn

    def episode_of(self, block: int, row: int) -> tuple[str, int]:
        """Return the name of the episode that a row of a block plays or has just played, and its number of bars since the first action."""
        played = self._blocks[block]
        return played.ids[row], int(played.block.view.clock[row])

    def ended(self) -> list[EndEvent]:
        """Return the ends since they were last asked for."""
        return self._drain("episode")

    def _open(self, recorded: Turn) -> None:
        """Make a block whose rows are vacant, in place of the one of its number, if there is any."""
        rows = [block.block.shape.n_rows for block in self._pipeline.blocks]
        number, received = recorded.block, len(recorded.opened[0])
        if number >= len(rows) or rows[number] != received:
            expected = rows[number] if number < len(rows) else "none"
            raise NotReplayableError(
                f"block {number}: expected {expected} episodes, received {received}: the run shared its episodes among blocks otherwise"
            )
        old = self._pipeline.blocks[number]
        new = self._pipeline.make_block(recorded.block, old.first_slot, old.block.shape.n_rows)
        new.rounds[:] = recorded.opened[0]
        self._blocks[recorded.block] = new
        self._events[recorded.block] = OpenEvent(new)

    def _drain(self, name: str) -> list[Any]:
        inbox = self._nodes[name].inbox
        with inbox.lock:
            return inbox.take()

    def _check(self, recorded: Turn, replayed: Turn, *groups: str) -> None:
        for group in groups:
            compare(recorded, replayed, group, self._action, exact=self._exact)


class _Stopping(threading.Event):
    """Whether the run is ending, as the log tells. A wait for it is over at once: in a replay no time passes."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()
