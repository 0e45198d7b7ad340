"""The episode core: it takes rows from its ways in, answers them in batches, and hands their steps to the learner.

It lives on one loop thread, which owns every episode, so nothing on the path of a step takes a lock. Rows that arrive in the same turn of
the loop share one forward pass: a lone caller waits for no other, and a crowd is batched by the time that the last batch took.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.common.errors import EpisodeFinishedError, PolicyServerError, ServerInternalError
from policyserver.common.spaces import leaves
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig
from policyserver.server.episodes.batch import Batch, Submission
from policyserver.server.episodes.batch_pass import BatchPass
from policyserver.server.episodes.core_statistics import CoreStatistics
from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.ended_episodes import EndedEpisodes
from policyserver.server.episodes.ending_error import ending_error
from policyserver.server.episodes.episode_table import EpisodeTable, ServedClient
from policyserver.server.episodes.learner_absence import LearnerAbsence
from policyserver.server.episodes.memory import most_open, most_pages
from policyserver.server.episodes.received_rows import PolicyWanted, ReceivedRows, Replies
from policyserver.server.episodes.room import Room
from policyserver.server.episodes.sample_requests import SampleRequests
from policyserver.server.episodes.segments import SegmentBlock
from policyserver.server.episodes.shares import EpisodeShares, PassShares
from policyserver.server.episodes.trajectories import Trajectories
from policyserver.server.episodes.whole_episodes_queue import most_held_steps
from policyserver.server.episodes.withheld import WithheldQuestions
from policyserver.server.policies.policy import Policy, StepLayout

logger = logging.getLogger(__name__)


class EpisodeCore:
    """Hold the open episodes and answer their rows."""

    def __init__(
        self,
        policy: Policy,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        episodes: EpisodesConfig,
        hand_off: HandOffConfig,
        demand: Demand | None = None,
    ) -> None:
        """Begin without episodes; without a `demand` the learner wants what `Demand` says by default."""
        self._policy = policy
        self._config = episodes
        demand = demand or Demand()
        action = leaves(action_space, "action")[0]
        self._segment_steps = segment_steps = _segment_steps(hand_off.segment_steps, policy.layout, demand)
        slots = most_open(episodes, policy.layout, segment_steps)
        self._table = EpisodeTable(slots, episodes.finished_remembered, policy.initial_state, (action.shape, action.dtype))
        self._capacity_steps = self._most_steps = None
        if hand_off.capacity_steps:
            self._capacity_steps = max(hand_off.capacity_steps, segment_steps)
            # Segments are dropped whole, so a full queue may lack almost one of its capacity.
            self._most_steps = self._capacity_steps - segment_steps - policy.layout.carried + 1
        demand = demand.within(self._most_steps)
        self._held_steps = most_held_steps(policy.layout) if demand.whole_episodes else 0  # which may all come at once
        self._base_capacity_steps = demand.capacity_steps + self._held_steps
        most_capacity_steps = max(self._capacity_steps or 0, demand.most_capacity_steps + self._held_steps)
        self._trajectories = Trajectories(
            policy.layout,
            slots=slots,
            segment_steps=segment_steps,
            capacity_steps=self._capacity,
            max_segments=min(most_capacity_steps + slots, most_pages(episodes, policy.layout, segment_steps)),
            whole_episodes=demand.whole_episodes,
            most_info_bytes=episodes.max_waiting_info_bytes,
        )
        self._pending: list[Submission] = []
        self._flush_scheduled = False
        self._scheduled_s = 0.0
        self._idle_timers: dict[int, asyncio.TimerHandle] = {}
        self._most_open = 0
        self.waiting_infos = self._trajectories.waiting_infos
        self.statistics = CoreStatistics()
        self.shares = EpisodeShares(self._table)
        self.ended = EndedEpisodes(self._table)
        self._pass_shares = PassShares()
        self.room = Room(demand, lambda: self._trajectories.steps_ready, hand_off.room_wait_s)
        if not demand.learns:
            self.room.lift()
        self._withheld = WithheldQuestions(policy, self._table, self._trajectories, self.room, self.statistics)
        self.requests = SampleRequests(
            policy, self._trajectories, self.room, self._withheld, demand, hand_off.max_segment_age_s, self._most_steps
        )
        """What the learner asks for."""
        self._pass = BatchPass(
            policy,
            self._table,
            self._trajectories,
            self._withheld,
            self.statistics,
            observation_space,
            action_space,
            self.shares,
            self.ended,
        )
        self._pass.learns = demand.learns
        self.absence = LearnerAbsence(self._trajectories, self.room, self.requests, self.ended)
        self._leaves = False

    # Ways in -------------------------------------------------------------------------------------------------------------------------

    def connect(self, client_id: str, connection: str | None = None, records_in: tuple[str, ...] = ()) -> ServedClient:
        """Note that a client opened a stream over a connection (unset: its own). It keeps its episodes of an earlier stream.

        Args:
            client_id: Way in and the client's own id.
            connection: What it came over.
            records_in: Where it records its episodes itself.
        """
        client = self._table.client(client_id, connection)
        client.records_in = records_in
        client.streams += 1
        if timer := self._idle_timers.pop(client.index, None):
            timer.cancel()
        return client

    def disconnect(self, client: ServedClient) -> None:
        """Note that a client's stream is gone; its episodes end after the idle timeout unless it returns."""
        client.streams -= 1
        if client.streams > 0:
            return
        timeout_s = self._config.episode_idle_timeout_s
        if not client.aliases and not any(submission.client is client for submission in self._pending):
            self._table.forget_client(client)
            return
        if client.aliases:
            logger.info("client %s is gone with %d open episodes; they end in %g s", client.client_id, len(client.aliases), timeout_s)
        self._idle_timers[client.index] = asyncio.get_running_loop().call_later(timeout_s, self._reap_client, client)

    def submit(self, rows: ReceivedRows, client: ServedClient) -> asyncio.Future[Replies]:
        """Take rows; the future has their replies once all are answered. It never fails: errors are in the replies."""
        future: asyncio.Future[Replies] = asyncio.get_running_loop().create_future()
        self.take(rows, client, lambda replies: None if future.done() else future.set_result(replies))
        return future

    def take(self, rows: ReceivedRows, client: ServedClient, done: Callable[[Replies], None]) -> None:
        """Take rows and call `done`, which must not fail, with their replies once all are answered: a turn of the loop before `submit`."""
        replies = self._pass.replies_to(rows)
        if replies.refusal is not None:
            self.statistics.rows_refused += len(rows)
        if not (count := len(replies.handles)):
            done(replies)
            return
        if self._leaves:  # nothing may be recorded any more; the episode's caller waits for the successor, which does not know it
            replies.refusals.update(dict.fromkeys(range(count), ending_error(is_final=False)))
            done(replies)
            return
        self._pass_shares.asks(client)
        self._pending.append(Submission(rows, client, replies, done, np.arange(count)))
        self._schedule_flush()

    def reap(self, client: ServedClient, episode_ids: list[str]) -> None:
        """End episodes of a client that is silent, as truncated at their last complete steps."""
        slots = np.array([client.aliases[id_] for id_ in episode_ids if id_ in client.aliases], np.int64)
        self._withheld.forget(slots)
        self._trajectories.abandon(slots[self._table.training[slots]])
        self.ended.note(slots, ["lost"] * len(slots), time.monotonic())
        self._policy.forget(slots.tolist())
        for slot in slots.tolist():
            self._table.close_episode(slot, idle=True)
        self.statistics.episodes_reaped += len(slots)
        self.requests.look()

    @property
    def episodes_open(self) -> int:
        """Open episodes now."""
        return self._table.open

    @property
    def steps_handed_off(self) -> int:
        """Steps given to the learner so far. From any thread."""
        return self._trajectories.steps_handed_off

    @property
    def drain_error(self) -> PolicyServerError | None:
        """Why new episodes are refused, if they are."""
        return self._pass.starts.refusal()

    def check_policy(self, wanted: PolicyWanted, episode_id: str) -> None:
        """Refuse what an episode wants, before its first row comes.

        Raises:
            PolicyServerError: There is no such policy, or no room for it.
        """
        self._policy.choose(wanted.name, episode_id, greedy=wanted.greedy)

    def finished_episode(self, client_id: str, episode_id: str) -> EpisodeFinishedError | None:
        """Return the error for a call that goes on with a finished episode, if it is remembered."""
        finished = self._table.finished_by_id(client_id, episode_id)
        return finished.error() if finished is not None else None

    # The env runner, through call_soon_threadsafe -------------------------------------------------------------------------------------

    def sample(
        self, want_steps: int, wait_s: float, done: Callable[[list[SegmentBlock]], None], *, or_fewer: bool = False, call_no: int = 0
    ) -> None:
        """Call `done` with `want_steps` steps as soon as there are as many; see `SampleRequests.ask`."""

        def answer(blocks: list[SegmentBlock]) -> None:
            self.snapshot()  # the counters that go with these steps
            self._most_open = self._table.open
            done(blocks)

        self.requests.ask(want_steps, wait_s, answer, or_fewer=or_fewer, call_no=call_no)

    def want(self, demand: Demand) -> None:
        """Take what the learner wants from its next request on: the number of serving actors has changed, and so each one's part."""
        demand = demand.within(self._most_steps)
        self._base_capacity_steps = demand.capacity_steps + self._held_steps
        self.room.demand = self.requests.demand = demand

    def pause_learning(self, paused: bool) -> None:
        """Let steps by-pass the hand-off and let no question wait, or go on as before."""
        self.absence.pause(paused)

    def serve_weights(self, weights_seq_no: int) -> None:
        """Swap to the weights loaded last, and make room for the steps that the learner wants of them."""
        self._policy.swap(weights_seq_no)
        self.room.open()

    def roll_back(self, weights_seq_no: int, *, drops_steps: bool) -> int:
        """Swap to the weights loaded last, which are older ones under a new version, and leave a request of the learner unanswered.

        Returns:
            How many recorded steps were dropped; none unless `drops_steps`.
        """
        self.requests.interrupt()
        dropped = self._trajectories.drop() if drops_steps else 0
        self.serve_weights(weights_seq_no)
        return dropped

    def drain(self, *, is_final: bool = False) -> None:
        """Refuse new episodes from now on, let no question wait, and answer `sample` at once; `is_final` tells clients not to wait."""
        self._pass.starts.drain_error = ending_error(is_final=is_final)
        self.room.lift()
        self.requests.drain()

    def retire(self, *, stays: bool = False) -> None:
        """Refuse new episodes from now on; the open ones go on, and their steps reach the learner as before. If it `stays`, end that."""
        self._pass.starts.retired = None if stays else ending_error(is_final=False)

    def leave(self) -> None:
        """Refuse everything from now on, end what is open as truncated, and give all steps to the next `sample`."""
        self._leaves = True
        for client in list(self._table.clients()):
            self.reap(client, list(client.aliases))
        self.drain()

    def hold_starts(self, reason: PolicyServerError | None) -> None:
        """Refuse new episodes for a reason; None ends that."""
        self._pass.starts.held = reason

    def limit_starts(self, most: int) -> None:
        """Refuse episodes once so many have been started in all, and tell their callers that no server comes back."""
        self._pass.starts.most = most

    def fail_all(self, error: PolicyServerError) -> None:
        """Answer everything that waits with an error; for the end of the process."""
        for submission in self._pending:
            submission.replies.refusals.update(dict.fromkeys(submission.todo.tolist(), error))
            submission.done(submission.replies)
        self._pending = []

    def snapshot(self) -> CoreStatistics:
        """Bring the counters up to date and return them."""
        statistics, trajectories = self.statistics, self._trajectories
        statistics.episodes_open = self._table.open
        statistics.infos_dropped = trajectories.waiting_infos.dropped
        statistics.starts_refused = self.shares.starts_refused
        statistics.steps_handed_off = trajectories.steps_handed_off
        statistics.steps_dropped = trajectories.queue.steps_dropped
        statistics.steps_paused, statistics.steps_cut_off = trajectories.steps_let_go
        statistics.daemon_silent_s = self.absence.silent_s
        statistics.steps_waiting = trajectories.steps_ready
        statistics.questions_waiting = self._withheld.waiting
        statistics.staleness_mean = trajectories.versions_behind / max(trajectories.steps_handed_off, 1)
        statistics.return_mean = sum(statistics.returns) / len(statistics.returns) if statistics.returns else None
        statistics.weights_seq_no = self._policy.weights_seq_no
        shadows = self._policy.shadow_figures()
        statistics.shadow_rows_failed = sum(shadow.rows_failed for shadow in shadows)
        statistics.policies = (*(found.figures(name) for name, found in statistics.by_policy.items()), *shadows)
        return statistics

    def queues(self) -> dict[str, float]:
        """Return how much waits and is held, by what it is."""
        trajectories = self._trajectories
        rows = [submission.rows for submission in self._pending]
        return {
            "questions_rows": float(sum(map(len, rows))),
            "questions_bytes": float(sum(each.size_bytes for each in rows)),
            "learner_steps": float(trajectories.steps_ready),
            "learner_bytes": float(trajectories.pages_used * trajectories.page_bytes),
            "room": float(self.room.is_open),
        }

    def by_hand(self) -> tuple[dict[str, tuple[int, int, int]], int]:
        """Return the counts of the clients that chose actions themselves, see `ByHand`, and how many clients are no longer told of."""
        return self._table.by_hand.report(), self._table.by_hand.dropped

    def trim(self) -> None:
        """Give memory that is no longer used back to the operating system."""
        self._table.trim()
        self._trajectories.trim()
        self._pass_shares.forget()

    # One pass ------------------------------------------------------------------------------------------------------------------------

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._scheduled_s = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        pending, self._pending = self._pending, []
        if not pending:
            return
        pending, self._pending = self._pass_shares.divide(pending)
        timing, scheduled_s, begun_s = self.statistics.timing, self._scheduled_s, time.perf_counter()
        batch = Batch.of(pending)
        try:
            deferred = self._pass.apply(batch)
        except Exception:
            incident = secrets.token_hex(4)
            logger.exception("incident %s: %d rows could not be answered", incident, len(batch))
            error = ServerInternalError(f"the server failed to answer; incident {incident} in its log")
            self.statistics.rows_failed += len(batch)
            deferred = np.empty(0, np.int64)
            batch.refuse_all(np.arange(len(batch)), error)
        passed_s = time.perf_counter()
        self._answer(batch, deferred)
        timing.rows.add(len(batch))
        timing.took("gather", scheduled_s, begun_s)
        timing.took("pass", begun_s, passed_s)
        timing.took("answer", passed_s, time.perf_counter())
        self._most_open = max(self._most_open, self._table.open)
        self.requests.note_rows()

    def _answer(self, batch: Batch, deferred: npt.NDArray[np.int64]) -> None:
        """Resolve the submissions that are complete and keep the others for the next pass."""
        waiting = batch.submission[deferred]
        unfinished = []
        for number, submission in enumerate(batch.submissions):
            submission.todo = np.sort(batch.row[deferred[waiting == number]]) if deferred.size else deferred
            if submission.later.size:
                submission.todo, submission.later = np.concatenate((submission.todo, submission.later)), submission.later[:0]
            if submission.todo.size:
                unfinished.append(submission)
            else:
                self.statistics.rows_refused += len(submission.replies.refusals) - submission.replies.waiting
                submission.replies.is_stale = self.absence.is_silent
                submission.done(submission.replies)
        self._pending[:0] = unfinished
        if self._pending:
            self._schedule_flush()

    def _reap_client(self, client: ServedClient) -> None:
        del self._idle_timers[client.index]
        count = len(client.aliases)
        self.reap(client, list(client.aliases))
        self._table.forget_client(client)
        if count:
            logger.info("client %s did not come back; its %d episodes ended as truncated", client.client_id, count)

    def _capacity(self) -> int:
        """Return how many steps may wait: those that the learner asks for, and a segment of each episode open since it came last."""
        if self._capacity_steps is not None:
            return self._capacity_steps
        return self._base_capacity_steps + self._segment_steps * max(self._most_open, self._table.open)


def _segment_steps(wanted: int, layout: StepLayout, demand: Demand) -> int:
    """Return how long a segment is at most.

    A page has room for what it hands off and what it carries on. A recurrent net's segments end where a sequence does, so that the states
    that are kept fit together when they are joined, and no sequence is padded for it. Where updates are counted by steps, one segment is no
    more than the learner asks for.
    """
    if not demand.on_policy:
        wanted = min(wanted, demand.fragment_steps)
    steps = max(wanted, layout.carried + 1)
    return steps if layout.initial_state is None else max(steps // layout.state_every, 1) * layout.state_every
