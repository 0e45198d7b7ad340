"""`policy-pipeline demo`: a policy server as its own process, the pipelines, the live page, the terminal view, and the summary."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from policyserver.monitoring.page.server import PageServer
from policyserver.monitoring.sink import Sink
from policyserver.monitoring.store.reader import Ledger, StoreReader
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.demo.claimed_address import claimed_address
from policyserver.pipelines.demo.server_process import ServerProcess
from policyserver.pipelines.demo.setup import SERVER_FILE, STORE_FILE, DemoConfig, fresh_run, newest_run, resumed_run
from policyserver.pipelines.demo.terminal import TerminalView
from policyserver.pipelines.forecast.state_file import ForecastState
from policyserver.pipelines.forecast_start import saved_forecasts, start_of
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.pipeline_metrics import PipelineMetrics
from policyserver.pipelines.replay.run_folder import SUMMARY_FILE
from policyserver.pipelines.replay.run_record import claimed_folder, recorded_run
from policyserver.pipelines.replay.turn_log import TurnLog
from policyserver.pipelines.run import ENDED, EVENTS_FULL, LAST_ANSWER_S, closing_sink, connect, source_of, wait_for_end
from policyserver.pipelines.runtime.stop_signals import StoppedEarlyError, StopSignals
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.pipelines.snapshot import SnapshotTaker
from policyserver.pipelines.summary import LedgerError, Summary, summarise

_SERVING = "serving"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo leaves behind."""

    summary: Summary
    """The run in figures."""
    folder: Path
    """Its run folder."""
    interrupted: bool
    """Whether it was stopped before it had its steps."""


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
        before = _recorded(folder)
        start = start_of(config, source_of(config)) if config.regressor.state is not None else None
        log = whole.enter_context(recorded_run(config, folder, lambda: stop.put(EVENTS_FULL), start, lock))
        stack.callback(log.close)
        pipeline, watch, leaked, reason = _play(config, folder, start, sink, log, out, page.address, stop, metrics)
        say(f"stopping the policy server, which takes at most {server.stop_timeout_s:.0f} s")
        stack.close()  # now every point is stored
        after = _recorded(folder)
        recorded = Ledger(after.steps - before.steps, after.reward_sum - before.reward_sum)
        summary = summarise(pipeline, watch, recorded, log, episodes_leaked=leaked, server_restarts=server.restarts)
        for path in (folder / SUMMARY_FILE, *([options.json] if options.json else [])):
            summary.write(path)
        say(f"\n{summary.table()}{'run folder':<18}{folder}")
        if difference := summary.unexplained_difference():
            raise LedgerError(difference)
    return DemoResult(summary, folder, interrupted=reason != ENDED)


def _play(
    config: PipelineConfig,
    folder: Path,
    start: ForecastState | None,
    sink: Sink,
    log: TurnLog,
    out: TextIO,
    page: str,
    stop: StopSignals,
    metrics: PipelineMetrics,
) -> tuple[Pipeline, ServerWatch, int | None, str]:
    """Run the pipeline until `stop` has a reason; return it, what the server said last, the episodes it still held, and the reason."""
    with connect(config) as policy:
        pipeline = Pipeline(config, policy, sink, turns=log, start=start)
        watch = ServerWatch(policy, sink, pipeline.tags)
        metrics.follow(pipeline, watch, policy)
        headline = f"{config.recording.run}   {config.prices.name}   {', '.join(pipeline.symbols)}   page {page}   Ctrl-C ends"
        view = TerminalView(SnapshotTaker(pipeline, watch), out, lambda: headline)
        try:
            with view.suspendable(), saved_forecasts(pipeline, folder), pipeline.running():
                watch.start()
                view.start()
                reason = wait_for_end(pipeline, stop)
            watch.flush().result(LAST_ANSWER_S)
        finally:
            view.stop()
            watch.stop()
    return pipeline, watch, watch.episodes_open, reason


def _recorded(folder: Path) -> Ledger:
    """Return what the store has of the run."""
    with closing(StoreReader(folder / STORE_FILE)) as reader:
        return reader.ledger(folder.name)
