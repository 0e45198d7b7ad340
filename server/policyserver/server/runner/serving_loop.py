"""The thread that serves: one asyncio loop on which the gRPC server and the episode core live."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import logging
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

import grpc
import gymnasium as gym
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from policyserver.common.endpoints import parse_address
from policyserver.common.errors import PolicyServerError
from policyserver.common.figures import known
from policyserver.common.process_figures import process_figures
from policyserver.common.server_stats import ServerStats, TrainingIteration
from policyserver.server.config.serving_config import ServingConfig
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.ended_episodes import EndedEpisode
from policyserver.server.episodes.ending_error import ending_error, silence_error
from policyserver.server.episodes.segments import SegmentBlock
from policyserver.server.episodes.untold_episodes import UntoldEpisodes
from policyserver.server.grpc_front.channel_options import channel_options
from policyserver.server.grpc_front.client_numbers import ClientNumbers
from policyserver.server.grpc_front.endpoints import Endpoints
from policyserver.server.grpc_front.listen_address import check_free
from policyserver.server.grpc_front.listen_security import ListenSecrets, TokenInterceptor
from policyserver.server.grpc_front.servicer import SERVICE_NAME, PolicyServicer
from policyserver.server.grpc_front.unreadable import UnreadableInterceptor
from policyserver.server.processes.serving_report import ServingReport
from policyserver.server.runner.sent_secrets import SentSecrets

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TRIM_INTERVAL_S = 10.0
_CALLS_AT_ONCE = 1000
"""Unary calls and health watches that are answered at once, beside the streams; one more is refused with RESOURCE_EXHAUSTED."""


class ServingLoop:
    """Run an episode core and its gRPC server on a thread of their own.

    `start`, `bind` and `stop` are called from other threads and block; `stop` may be called at any time and more than once.
    """

    def __init__(
        self,
        make_core: Callable[[], EpisodeCore],
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        config: ServingConfig,
    ) -> None:
        """Prepare to serve. `make_core` is called once, on the loop thread, which owns what it returns."""
        self.boot_id = uuid.uuid4().hex
        self.addresses: list[str] = []
        self._make_core = make_core
        self._config = config
        self._spaces = observation_space, action_space
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="policy-server", daemon=True)
        self._servers, self._health = list[grpc.aio.Server](), list[Any]()
        self._servicer: PolicyServicer | None = None
        self._training: TrainingIteration | None = None
        self._started_s = time.monotonic()
        self._is_final = False
        self._stopped = threading.Event()
        self._stop_lock = threading.Lock()
        self._calls: set[concurrent.futures.Future[Any]] = set()
        self._calls_are_old = False  # whether calls that begin now may be from before the daemon's silence
        self.sent_secrets = SentSecrets()
        """What the daemon has this process listen with, in place of the configured files."""
        self.endpoints: Callable[[], list[str]] = lambda: self.addresses
        """Returns the addresses of all serving processes of the daemon."""
        self.loads: Callable[[], Mapping[str, int]] = dict
        """Returns the episodes that are open at each, of those of which that is known."""
        self._endpoints = Endpoints(lambda: self.endpoints(), lambda: self.loads())
        self.advertise: Callable[[str], str] = lambda bound: bound
        """Makes what clients are told of an address that is listened on."""
        self.client_numbers = (0, 1)
        """The first number that a client gets here, and the step to the next: no two serving processes of a daemon give the same."""
        self.at_stop: list[Callable[[PolicyServerError], None]] = []
        """Called on the loop thread when the server stops, with what other ways in answer from then on."""

    # From other threads --------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread and make the core."""
        self._thread.start()
        self._call(self._start())

    def bind(self, address: str | None = None) -> str:
        """Serve on an address (default: the configured one) and return it, with the port the system chose if it was 0.

        Raises:
            OSError: The address can't be bound, for example because another server has it; or the daemon sends no secrets.
        """
        self.sent_secrets.wait(self._config.driver_link)
        return self._call(self._bind(address or self._config.listen.address))

    def sample(self, want_steps: int, wait_s: float, *, or_fewer: bool = False, call_no: int = 0) -> list[SegmentBlock]:
        """Wait until `want_steps` steps are there, but no longer than `wait_s`, and take them; see `EpisodeCore.sample`."""
        answer = concurrent.futures.Future[list[SegmentBlock]]()
        try:
            ask = partial(self.core.sample, want_steps, wait_s, answer.set_result, or_fewer=or_fewer, call_no=call_no)
            self._loop.call_soon_threadsafe(ask)
            return answer.result(timeout=wait_s + 30.0)
        except RuntimeError:  # the loop is closed: nothing will come any more
            return []

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on the loop thread, between two batches, and return what it returns; here, once the loop has stopped."""
        if threading.current_thread() is self._thread:  # a callback of the user's that asks its env runner for something
            return function()
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(function())
                except BaseException as error:
                    answer.set_exception(error)

        self._calls.add(answer)
        try:
            self._loop.call_soon_threadsafe(run)
            return answer.result()
        except concurrent.futures.CancelledError:
            return function()
        except RuntimeError:
            if answer.done():  # it is the function's own
                raise
            return function()
        finally:
            self._calls.discard(answer)

    def serve_weights(self, weights_seq_no: int) -> None:
        """Serve the weights loaded last, from the next batch on; returns when that is so."""
        self.call(partial(self.core.serve_weights, weights_seq_no))

    def pause_learning(self, paused: bool) -> None:
        """Let steps by-pass the learner, or go on as before; returns when that is so."""
        self.call(lambda: self.core.pause_learning(paused))

    def limit_starts(self, most: int) -> None:
        """Start so many episodes in all."""
        self.call(lambda: self.core.limit_starts(most))

    def tell_endpoints(self) -> None:
        """Tell clients where the serving processes are and how busy, if that is new."""
        self.post(self._endpoints.look)

    def want(self, demand: Demand) -> None:
        """Take what the learner wants from now on."""
        self.call(lambda: self.core.want(demand))

    def interrupt_sample(self) -> None:
        """Answer a waiting `sample` with nothing."""
        self.post(lambda: self.core.requests.interrupt())

    def call_is_full(self, call_no: int) -> None:
        """See `SampleRequests.call_is_full`."""
        self.post(lambda: self.core.requests.call_is_full(call_no))

    def report_training(self, report: TrainingIteration) -> None:
        """Take the newest training iteration for GetStats."""
        self._training = report

    def drain(self, *, is_final: bool = False) -> None:
        """Say NOT_SERVING, refuse new episodes, answer `sample` at once.

        If it `is_final`, callers are told that the server does not come back, so that they stop waiting; else they wait for a successor.
        """
        self._is_final = self._is_final or is_final
        self.post(self._drain)

    def retire(self, *, leaves: bool, stays: bool = False) -> None:
        """Say NOT_SERVING and refuse new episodes; if it `leaves`, end the open ones, too, and give all steps to the next `sample`.

        If it `stays`, start episodes again, unless it leaves or drains.
        """

        def follow() -> None:
            if leaves:
                self.core.leave()
                for servicer in self._health:
                    self._loop.create_task(servicer.enter_graceful_shutdown())
            else:
                self.core.retire(stays=stays)
                self._say_whether_it_serves()

        self.call(follow)

    @property
    def episodes_open(self) -> int:
        """Number of open episodes, as it was a moment ago. From any thread."""
        return self.core.episodes_open

    def daemon_is_silent(self) -> None:
        """Go on without the daemon: answers are marked as stale, steps by-pass the learner, and no caller waits for it."""
        self.post(partial(self._note_silence, True))

    def daemon_is_away(self) -> None:
        """Say NOT_SERVING and refuse new episodes, until the daemon is heard of: the weights are too old. Open episodes go on."""
        logger.warning("the daemon has been silent for too long: no new episodes begin here until it is heard of")
        self.post(partial(self._hold, is_held=True))

    def daemon_is_back(self) -> None:
        """Go on as before the daemon was silent."""
        self.post(partial(self._hold, is_held=False))
        self.post(partial(self._note_silence, False))

    def takes_old_call(self) -> bool:
        """Tell, once, whether a call of RLlib's that begins now may be from before the daemon's silence, so that its answer goes nowhere.

        The first call after the silence may, unless RLlib has set a state since, which comes after such calls.
        """
        is_old = self._calls_are_old and not self.core.absence.is_silent
        if is_old:
            self._calls_are_old = False
        return is_old

    def wait_stopped(self, timeout_s: float | None = None) -> bool:
        """Block until the server has stopped; return whether it has."""
        return self._stopped.wait(timeout_s)

    def stop(self, grace_s: float = 2.0, *, is_final: bool = False) -> None:
        """Stop serving: health first, then calls (those in flight get `grace_s`), then the thread. A second call does nothing.

        `is_final` is that of `drain`; what was said there stays said.
        """
        self._is_final = self._is_final or is_final
        with self._stop_lock:
            if self._thread.is_alive() and threading.current_thread() is not self._thread:
                self._call(self._stop(grace_s))
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
        self._stopped.set()

    # On the loop thread --------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()
            for call in list(self._calls):
                call.cancel()  # its caller goes on alone
            self._stopped.set()

    async def _start(self) -> None:
        self.core = self._make_core()
        self.untold = UntoldEpisodes(self.core.ended)
        self._trim()

    async def _bind(self, address: str) -> str:
        listen = dataclasses.replace(self._config.listen, address=address)
        secrets = self.sent_secrets.newest or ListenSecrets.read(listen)
        target = parse_address(address)
        options = channel_options(listen.max_message_bytes)
        interceptors: list[Any] = [UnreadableInterceptor(), *([TokenInterceptor(secrets.token)] if secrets.token else [])]
        server = grpc.aio.server(options=options, interceptors=interceptors, maximum_concurrent_rpcs=listen.max_clients + _CALLS_AT_ONCE)
        if self._servicer is None:
            numbers = ClientNumbers(*self.client_numbers)
            self._servicer = PolicyServicer(self.core, self.boot_id, self._spaces, self._config, self._endpoints, self._stats, numbers)
        self._servicer.add_to(server)
        health_servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        if listen.reflection:
            reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        credentials = secrets.credentials()
        try:
            port = server.add_secure_port(target, credentials) if credentials else server.add_insecure_port(target)
        except RuntimeError as error:
            check_free(address)  # says why, which gRPC only writes to its own log
            raise OSError(f"listen.address: {address} could not be bound: {error}") from error
        await server.start()
        for name in ("", SERVICE_NAME):
            await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._servers.append(server)
        self._health.append(health_servicer)
        bound = address if target.startswith("unix:") else f"{target.rpartition(':')[0]}:{port}"
        self.addresses.append(bound)
        logger.info("serving %s on %s (boot %s)", SERVICE_NAME, bound, self.boot_id)
        return bound

    def advertised(self) -> list[str]:
        """Return the addresses at which clients reach this server. From any thread."""
        return [self.advertise(bound) for bound in self.addresses]

    def report(self, told: Mapping[str, int] | None = None, *, explores: bool) -> ServingReport:
        """Return how serving goes, and the episodes that ended. From any thread.

        Args:
            told: How many ended episodes of each serving process, by its boot id, need not be told again. Unset: those of earlier calls.
            explores: Whether the policy does.
        """
        process = process_figures()
        return self.call(lambda: self._report(None if told is None else told.get(self.boot_id, 0), explores, process))

    def _report(self, told: int | None, explores: bool, process: dict[str, float]) -> ServingReport:
        statistics, (first, ended, missing) = self.core.statistics, self.untold.take(told)
        return ServingReport(
            known(self._stats()),
            _columns(ended, explores),
            missing,
            dict(statistics.calls),
            statistics.timing.rows.copy(),
            {phase: histogram.copy(1e-6) for phase, histogram in statistics.timing.phases.items()},
            self.core.queues(),
            process,
            *self.core.by_hand(),
            policies=statistics.policies,
            episodes_from=first,
            addresses=tuple(self.advertised()),
        )

    def _stats(self) -> ServerStats:
        stats = self.core.snapshot()
        stats.boot_id, stats.uptime_s, stats.training = self.boot_id, time.monotonic() - self._started_s, self._training
        return stats

    def _note_silence(self, is_silent: bool) -> None:
        self._calls_are_old = self._calls_are_old or is_silent
        self.core.absence.note_silence(is_silent)

    def _hold(self, *, is_held: bool) -> None:
        self.core.hold_starts(silence_error() if is_held else None)
        self._say_whether_it_serves()

    def _say_whether_it_serves(self) -> None:
        states = health_pb2.HealthCheckResponse
        says = states.SERVING if self.core.drain_error is None else states.NOT_SERVING
        for servicer in self._health:
            for name in ("", SERVICE_NAME):
                self._loop.create_task(servicer.set(name, says))

    def _drain(self) -> None:
        self.core.drain(is_final=self._is_final)
        for servicer in self._health:
            self._loop.create_task(servicer.enter_graceful_shutdown())

    def _trim(self) -> None:
        self.core.trim()
        self._loop.call_later(_TRIM_INTERVAL_S, self._trim)

    async def _stop(self, grace_s: float) -> None:
        if hasattr(self, "core"):
            self._drain()
            error = ending_error(is_final=self._is_final)
            self.core.fail_all(error)
            for answer in self.at_stop:
                answer(error)
            if self._is_final and self._servicer is not None:
                await self._servicer.end_streams(error)
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._servers.clear()

    # Between -------------------------------------------------------------------------------------------------------------------------

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def post(self, function: Callable[[], None]) -> None:
        """Call a function on the loop thread, unless that has ended."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            logger.debug("the loop is closed; %s not called", function)


def _columns(ended: list[EndedEpisode], explores: bool) -> dict[str, list[Any]]:
    """Turn episodes into columns by the names under which they are recorded."""
    if not ended:
        return {}
    columns = dict(zip(EndedEpisode._fields, map(list, zip(*ended, strict=True)), strict=True))
    explored = [explores and not greedy for greedy in columns["greedy"]]
    return columns | {"return": columns.pop("return_"), "explored": explored}
