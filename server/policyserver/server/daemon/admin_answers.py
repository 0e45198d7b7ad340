"""Answers the admin service for a server that learns: from what is known, at the main thread's safe point, or over the driver link."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

import grpc

from policyserver.monitoring.sink import Sink
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.control.admin_errors import AdminError, draining_error, starting_error
from policyserver.server.daemon.actor_ends import ForGood
from policyserver.server.daemon.actor_health import ActorHealth
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointFolder
from policyserver.server.daemon.learning import Learning
from policyserver.server.daemon.roll_back import RollBackUnderWayError
from policyserver.server.daemon.rolling_restart import Ends, RestartError, RollingRestart, ask_by
from policyserver.server.daemon.safe_point import SafePoint
from policyserver.server.daemon.scale_errors import BoundsError, NoRoomError, ScaleError
from policyserver.server.daemon.scaling import Scaling
from policyserver.server.daemon.serving_answers import ServingAnswers, info_of, telling_errors
from policyserver.server.daemon.serving_watch import ServingWatch
from policyserver.server.processes.link import LOG_LEVEL, RETIRE, Link
from policyserver.server.processes.training_report import Progress
from policyserver.v1 import admin_service_pb2 as pb

T = TypeVar("T")

_MOST_DRAIN_S = 86_400.0


def _check_drain_timeout(drain_timeout_s: float) -> None:
    if not 0 <= drain_timeout_s <= _MOST_DRAIN_S:
        text = f"drain_timeout_s: expected 0 to {_MOST_DRAIN_S:g}, received {drain_timeout_s:g}"
        raise AdminError(text, grpc.StatusCode.INVALID_ARGUMENT)


class AdminAnswers(ServingAnswers):
    """Answers each call of the admin service. From any thread."""

    def __init__(
        self,
        config: ServerConfig,
        link: Link,
        checkpoints: CheckpointFolder,
        safe_point: SafePoint,
        stopping: threading.Event,
        *,
        stop: Callable[..., None],
        stop_timeout_s: float,
    ) -> None:
        """Answer for a server that starts; `stop` begins its end, which takes at most `stop_timeout_s`."""
        super().__init__(config, checkpoints, stopping, stop=stop, stop_timeout_s=stop_timeout_s)
        self._link = link
        self._safe_point = safe_point
        self._learning: Learning | None = None
        self._restarting = threading.Lock()
        self.actor_health: ActorHealth | None = None
        """What is known of actors on other machines; None without them."""

    def begin(self, learning: Learning, watch: ServingWatch, sink: Sink, tags: Mapping[str, str]) -> None:
        """Note that the server serves: what it learns, how serving goes, and where calls are recorded."""
        self._learning = learning
        self.serves(watch, sink, tags)

    # The calls ------------------------------------------------------------------------------------------------------------------------

    def status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        """Say how serving and learning are."""
        learning, response = self._learning, super().status(request)
        response.learning = self._learning_state
        if (health := self.actor_health) is not None:
            response.steps_undelivered = health.hand_offs.undelivered
        if learning is None:
            return response
        saved, iterated_s = learning.saved, learning.iterated_s
        response.failures, response.last_failure = learning.failures, learning.last_failure
        if iterated_s is not None:
            response.since_iteration_s = time.monotonic() - iterated_s
        if saved is not None:
            response.checkpoint = saved.number
        response.lineage = learning.lineage
        if learning.restored_from:
            response.restored_from = learning.restored_from
        if (under_way := learning.rolling_back) is not None:
            response.rolling_back_to = under_way.source.number
        guard = learning.guard
        response.guard_fired, response.guard_finding, response.paused_by_guard = guard.fired, guard.newest, guard.has_paused
        return response

    def save_checkpoint(self, request: pb.SaveCheckpointRequest) -> pb.SaveCheckpointResponse:
        """Save a checkpoint at the main thread's safe point."""
        learning = self._ready()
        saved = self._result(self._safe_point.ask(lambda: learning.save(pin=request.pin)))
        return pb.SaveCheckpointResponse(checkpoint=info_of(saved))

    def pause_learning(self, _: pb.PauseLearningRequest) -> pb.PauseLearningResponse:
        """Have steps by-pass the learner at once, and the learner pause at the safe point."""
        learning = self._ready()
        learning.pause(True)
        version = self._result(self._safe_point.ask(lambda: learning.progress.weights_seq_no))
        return pb.PauseLearningResponse(weights_seq_no=version)

    def resume_learning(self, _: pb.ResumeLearningRequest) -> pb.ResumeLearningResponse:
        """Have steps wait for the learner again, then let it go on."""
        learning = self._ready()
        learning.pause(False)
        return pb.ResumeLearningResponse(weights_seq_no=learning.progress.weights_seq_no)

    def roll_back(self, request: pb.RollBackRequest) -> pb.RollBackResponse:
        """Go back to a checkpoint; returns when it is served."""
        return self._roll_back(request.number)

    def promote(self, request: pb.PromoteRequest) -> pb.RollBackResponse:
        """Go back to the checkpoint of a loaded policy."""
        with telling_errors():
            loaded = self._further_policies().get(request.name)
        return self._roll_back(loaded.checkpoint.number if loaded.is_ours else loaded.checkpoint)

    def _roll_back(self, wanted: int | Checkpoint) -> pb.RollBackResponse:
        learning, watch = self._ready(), self._watch
        served = [int(counters["weights_seq_no"]) for counters in watch.newest] if watch is not None else []
        try:
            with telling_errors():
                done = learning.roll_back(wanted, max(served, default=0))
        except RollBackUnderWayError as error:
            raise AdminError(str(error), grpc.StatusCode.ABORTED) from error
        done.is_served.wait()
        return pb.RollBackResponse(
            checkpoint=info_of(done.result) if done.result is not None else None,
            weights_seq_no=done.served_version,
            actors=len(done.actors),
            weights_sha256=done.actors[0].weights_sha256 if done.actors else "",
            steps_dropped=sum(actor.steps_dropped for actor in done.actors),
        )

    def restart_actors(self, request: pb.RestartActorsRequest) -> pb.RestartActorsResponse:
        """Replace the serving actors one after another; returns when all are replaced."""
        learning = self._ready()
        _check_drain_timeout(request.drain_timeout_s)
        if self._safe_point.is_paused:
            text = "expected a learner that takes steps, received one that is paused: `policy-server ctl resume` lets it go on"
            raise AdminError(text, grpc.StatusCode.FAILED_PRECONDITION)
        with self._changing_actors():
            try:
                replaced = self._leaving(learning.ends).run(request.drain_timeout_s)
            except RestartError as error:
                raise AdminError(str(error), grpc.StatusCode.FAILED_PRECONDITION) from error
        return pb.RestartActorsResponse(
            actors=[
                pb.ReplacedActor(number=each.number, boot_id=each.boot_id, episodes_cut=each.episodes_cut, seconds=each.seconds)
                for each in replaced
            ]
        )

    def scale_actors(self, request: pb.ScaleActorsRequest) -> pb.ScaleActorsResponse:
        """Have another number of serving actors; returns when there are as many."""
        learning = self._ready()
        _check_drain_timeout(request.drain_timeout_s)
        actors = learning.actors
        with self._changing_actors():
            scaling = Scaling(
                actors, self._leaving(ForGood(actors)), self._stopping.wait, lambda: self._safe_point.is_paused, actors.check_room
            )
            try:
                done = scaling.run(request.actors, request.drain_timeout_s)
            except ScaleError as error:
                codes = {BoundsError: grpc.StatusCode.INVALID_ARGUMENT, NoRoomError: grpc.StatusCode.RESOURCE_EXHAUSTED}
                raise AdminError(str(error), codes.get(type(error), grpc.StatusCode.FAILED_PRECONDITION)) from error
        return pb.ScaleActorsResponse(
            before=done.before,
            actors=done.actors,
            added=[pb.AddedActor(number=each.number, address=each.address, seconds=each.seconds) for each in done.added],
            removed=[pb.RemovedActor(number=each.number, episodes_cut=each.episodes_cut, seconds=each.seconds) for each in done.removed],
        )

    def _leaving(self, ends: Ends) -> RollingRestart:
        ask = ask_by(self._link.ask, RETIRE)
        return RollingRestart(ask, ends, self._stopping.wait, lambda: self._safe_point.is_paused, self.known_actors.note_replaced)

    @contextlib.contextmanager
    def _changing_actors(self) -> Iterator[None]:
        """Be the only call that replaces, adds or removes actors.

        Raises:
            AdminError: It is not.
        """
        if not self._restarting.acquire(blocking=False):
            text = "expected no other restart or scale under way, received one: ask again when it has ended"
            raise AdminError(text, grpc.StatusCode.ABORTED)
        try:
            yield
        finally:
            self._restarting.release()

    def pin_checkpoint(self, request: pb.PinCheckpointRequest) -> pb.PinCheckpointResponse:
        """Keep a checkpoint whatever comes after it, or no longer."""
        with telling_errors():
            return pb.PinCheckpointResponse(checkpoint=info_of(self._checkpoints.pin(request.number, pinned=request.pinned)))

    def set_log_level(self, request: pb.SetLogLevelRequest) -> pb.SetLogLevelResponse:
        """Log from another severity on, here and in the serving actors."""
        response = super().set_log_level(request)
        self._link.order(LOG_LEVEL, request.level, stays=True)
        return response

    # What they need -------------------------------------------------------------------------------------------------------------------

    @property
    def _progress(self) -> Progress:
        return self._learning.progress if self._learning is not None else Progress()

    @property
    def _learning_state(self) -> pb.LearningState:
        if self._learning is None:
            return pb.LEARNING_STATE_STARTING
        is_updating = self._learning.is_updating
        if self._safe_point.is_paused:
            return pb.LEARNING_STATE_PAUSING if is_updating else pb.LEARNING_STATE_PAUSED
        return pb.LEARNING_STATE_UPDATING if is_updating else pb.LEARNING_STATE_COLLECTING

    @property
    def _actor_numbers(self) -> Sequence[int]:
        if self._learning is None:
            return ()
        actors = self._learning.actors.number
        return range(1, actors + 1) if actors else (0,)

    @property
    def _actors_silent(self) -> Collection[int]:
        return self.actor_health.silent if self.actor_health is not None else ()

    def _ready(self) -> Learning:
        """Return what learns.

        Raises:
            AdminError: The server starts or drains.
        """
        if self._stopping.is_set():
            raise draining_error()
        if self._learning is None:
            raise starting_error()
        return self._learning

    @staticmethod
    def _result(answer: Future[T]) -> T:
        with telling_errors():
            return answer.result()
