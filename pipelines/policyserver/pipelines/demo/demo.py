"""`policy-pipeline demo`: a policy server as its own process, the pipelines, the live page, the terminal view, and the summary."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from policyserver.common.file_lock import FileLock
from policyserver.monitoring.page.server import PageServer
from policyserver.monitoring.sink import Sink
from policyserver.monitoring.store.reader import Ledger, StoreReader
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.demo.claimed_address import claimed_address
from policyserver.pipelines.demo.server_process import ServerProcess
from policyserver.pipelines.demo.setup import SERVER_FILE, STORE_FILE, DemoConfig, fresh_run, newest_run, resumed_run
from policyserver.pipelines.demo.terminal import TerminalView
from policyserver.pipelines.forecast_start import saved_forecasts, start_of
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.pipeline_metrics import PipelineMetrics
from policyserver.pipelines.replay.run_folder import SUMMARY_FILE
from policyserver.pipelines.replay.run_record import claimed_folder, recorded_run
from policyserver.pipelines.replay.turn_log import TurnLog
from policyserver.pipelines.run import (
    ENDED,
    EVENTS_FULL,
    LAST_ANSWER_S,
    SINK_CLOSE_S,
    EndedRun,
    closing_sink,
    connect,
    source_of,
    wait_for_end,
)
from policyserver.pipelines.runtime.stop_signals import StoppedEarlyError, StopSignals
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.pipelines.snapshot import SnapshotTaker
from policyserver.pipelines.summary import LedgerError, Summary, summarise
from policyserver.pipelines.walk_forward import WALK_FORWARD_FILE, Part, WalkForwardSummary, fold_parts, is_walk_forward, play_parts

_SERVING = "serving"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo leaves behind."""

    summary: Summary
    """The run in figures."""
    folder: Path
    """Its run folder."""
    interrupted: bool
    """Whether it was stopped before it had its steps, or all of its parts."""
    walk_forward: WalkForwardSummary | None = None
    """All parts of a walk-forward, of which `summary` is the last; None: the run is of one part."""


def run_demo(options: DemoConfig, out: TextIO, stop: StopSignals) -> DemoResult:
    """Run the demo to its end and write the summary.

    Args:
        options: The user's choices.
        out: Where the view and the summary go.
        stop: Ends the demo early.

    Raises:
        SettingsError: There is no run to resume, or the prices cannot be made.
        ServerDiedError: The server did not start, or died too often.
        LedgerError: The ledgers differ; the summary is written.
        StoppedEarlyError: `stop` had a reason before the server was ready.
        BaseException: Whatever made a node fail for good.
    """

    def say(text: str) -> None:
        out.write(text + "\n")
        out.flush()

    with ExitStack() as whole, ExitStack() as stack:
        address = stack.enter_context(claimed_address())
        if options.resume:
            lock = whole.enter_context(claimed_folder(folder := newest_run(options)))
            config = resumed_run(folder, options, address)
        else:
            folder, config = fresh_run(options, address)
            lock = whole.enter_context(claimed_folder(folder))
        say(f"{'resuming' if options.resume else 'new run'} {folder}")
        sink = stack.enter_context(closing_sink(config))
        server = ServerProcess(folder / SERVER_FILE, address, folder / "server.out")
        config = replace(config, server=replace(config.server, instance_id=server.instance_id))
        stack.callback(server.stop)
        say(f"starting the policy server on {address} (log: {folder / 'server.out'})")
        server.start(on_serving=lambda: stop.put(_SERVING), on_death=stop.put)
        if (reason := stop.wait()) != _SERVING:
            raise StoppedEarlyError(f"{reason}: stopped before the policy server was ready")
        page = PageServer()
        stack.callback(page.close)
        metrics = PipelineMetrics(config, sink)
        page.start(folder / STORE_FILE, metrics.routes())
        say(f"live page: {page.address}")
        stage = _Stage(folder, sink, metrics, server, lock, out, page.address, stop)
        walk: WalkForwardSummary | None = None
        if is_walk_forward(config):
            walk, played = stage.play_folds(config)
        else:
            played = stage.play(config)
        say(f"stopping the policy server, which takes at most {server.stop_timeout_s:.0f} s")
        stack.close()  # now every point is stored
        summary = played.summary()
        summary.write(folder / SUMMARY_FILE)
        whole_summary = walk or summary
        for path in (*([folder / WALK_FORWARD_FILE] if walk else []), *([options.json] if options.json else [])):
            whole_summary.write(path)
        say(f"\n{whole_summary.table()}{'run folder':<18}{folder}")
        if difference := stage.difference or summary.unexplained_difference():
            raise LedgerError(difference)
    return DemoResult(summary, folder, interrupted=played.reason != ENDED, walk_forward=walk)


@dataclass(slots=True)
class _Stage:
    """What all parts of a demo are played with."""

    folder: Path
    sink: Sink
    metrics: PipelineMetrics
    server: ServerProcess
    lock: FileLock
    out: TextIO
    page: str
    stop: StopSignals
    difference: str = ""
    """How the ledgers of a part that is over differ, if they do."""
    reward_served: float = 0.0
    """Reward that the server process has got in the parts before."""
    restarts: int = 0
    """How often the server had been started again when these were over."""

    def play_folds(self, config: PipelineConfig) -> tuple[WalkForwardSummary, _Played]:
        """Play the parts of a walk-forward; return their figures, and the last one."""
        parts = fold_parts(config)
        played: list[_Played] = []

        def play(part: Part) -> EndedRun:
            self.out.write(f"fold {part.fold}, {part.side}: {part.config.episodes.count} episodes\n")
            played.append(own := self.play(part.config))
            self.sink.flush(SINK_CLOSE_S)
            summary = own.summary()
            summary.write(self.folder / SUMMARY_FILE)
            self.difference = self.difference or summary.unexplained_difference()
            self.reward_served, self.restarts = own.watch.reward_sum, self.server.restarts
            return EndedRun(own.pipeline, summary, own.reason)

        walk, _ = play_parts(parts, self.stop, play)
        return walk, played[-1]

    def play(self, config: PipelineConfig) -> _Played:
        """Run the pipeline until `stop` has a reason."""
        before, restarts = _recorded(self.folder), self.server.restarts
        served = self.reward_served if restarts == self.restarts else 0.0
        start = start_of(config, source_of(config)) if config.regressor.state is not None else None
        with recorded_run(config, self.folder, lambda: self.stop.put(EVENTS_FULL), start, self.lock) as log, connect(config) as policy:
            pipeline = Pipeline(config, policy, self.sink, turns=log, start=start)
            watch = ServerWatch(policy, self.sink, pipeline.tags)
            self.metrics.follow(pipeline, watch, policy)
            what = "   ".join(filter(None, (config.recording.run, config.prices.part, config.prices.name, ", ".join(pipeline.symbols))))
            view = TerminalView(SnapshotTaker(pipeline, watch), self.out, lambda: f"{what}   page {self.page}   Ctrl-C ends")
            try:
                with view.suspendable(), saved_forecasts(pipeline, self.folder), pipeline.running():
                    watch.start()
                    view.start()
                    reason = wait_for_end(pipeline, self.stop)
                watch.flush().result(LAST_ANSWER_S)
            finally:
                view.stop()
                watch.stop()
        return _Played(self, pipeline, watch, log, reason, before, restarts, served)


@dataclass(frozen=True, slots=True)
class _Played:
    """A part of a demo that has ended, or all of it."""

    stage: _Stage
    pipeline: Pipeline
    watch: ServerWatch
    """Has heard what the server said last."""
    log: TurnLog
    reason: str
    """Why it ended."""
    recorded_before: Ledger
    restarts_before: int
    reward_served_before: float

    def summary(self) -> Summary:
        """Return it in figures; every point has to be stored."""
        after, before = _recorded(self.stage.folder), self.recorded_before
        recorded = Ledger(after.steps - before.steps, after.reward_sum - before.reward_sum)
        restarts, watch = self.stage.server.restarts - self.restarts_before, self.watch
        made = summarise(self.pipeline, watch, recorded, self.log, episodes_leaked=watch.episodes_open, server_restarts=restarts)
        return replace(made, reward_sum_server=made.reward_sum_server - self.reward_served_before)


def _recorded(folder: Path) -> Ledger:
    """Return what the store has of the run."""
    with closing(StoreReader(folder / STORE_FILE)) as reader:
        return reader.ledger(folder.name)
