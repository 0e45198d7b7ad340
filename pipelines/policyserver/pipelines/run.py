"""`policy-pipeline run`: the pipeline against a policy server that runs elsewhere, until it is told to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from policyserver.client import (
    AuthenticationError,
    ClientConfig,
    HandshakeError,
    InsecureTargetError,
    PolicyClient,
    PolicyServerError,
    ServerInfo,
)
from policyserver.common.settings import SettingsError
from policyserver.monitoring.recording import places, prepared
from policyserver.monitoring.sink import Sink
from policyserver.monitoring.store.reader import Ledger, StoreReader
from policyserver.pipelines.config import UNNAMED_RUN, PipelineConfig
from policyserver.pipelines.forecast.block_forecaster import INPUTS
from policyserver.pipelines.forecast.regressor import try_out
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.pipeline import Pipeline, reach_of
from policyserver.pipelines.pipeline_metrics import PipelineMetrics
from policyserver.pipelines.prices import PriceSource, make_source
from policyserver.pipelines.prices.config import make_slots
from policyserver.pipelines.replay.run_folder import SUMMARY_FILE, folder_of
from policyserver.pipelines.replay.run_record import recorded_run
from policyserver.pipelines.replay.turn_log import TurnLog
from policyserver.pipelines.runtime.stop_signals import StoppedEarlyError, StopSignals
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.pipelines.summary import summarise

logger = logging.getLogger(__name__)

SINK_CLOSE_S = 5.0
"""Longest time the sinks get for what is still on its way, seconds; what InfluxDB has not taken waits on disk for the next run."""

_LOGGED_NOTES = 8
"""Symbols whose windows are logged."""

_RETRY_S = 1.0
"""Seconds from one attempt to reach the server to the next."""

_WITHOUT_STORE = Path("runs/pipeline.sqlite")
"""Where the store would be, for the spool that lies beside it."""


def connect(config: PipelineConfig) -> PolicyClient:
    """Return a client of the configured server; it connects with its first call.

    Raises:
        InsecureTargetError: The server is off this machine, and certificate or token are missing.
        SettingsError: The address is malformed, or a file cannot be read.
    """
    server = config.server
    options = ClientConfig(
        action_timeout_s=config.policy.action_timeout_s,
        waits_for_learner=config.policy.waits_for_learner,
        connect_timeout_s=server.connect_timeout_s,
        expected_run=config.recording.run,
        expected_instance_id=server.instance_id,
        tls_ca_file=server.tls_ca_file,
        token_file=server.token_file,
        records_in=_places(config),
    )
    rules = Rules.of(config.rules)
    slots = make_slots(config.prices)
    observations, actions = rules.observation_space(slots), rules.actions.space(slots)
    try:
        return PolicyClient(server.address, config=options, observation_space=observations, action_space=actions)
    except InsecureTargetError:
        raise
    except ValueError as error:
        raise SettingsError("server", "", str(error)) from error


def _places(config: PipelineConfig) -> tuple[str, ...]:
    try:
        return places(config.recording, config.recording.store)
    except ValueError as error:
        raise SettingsError("recording", "", str(error)) from error


def source_of(config: PipelineConfig) -> PriceSource:
    """Return the configured prices, once it is known that there is something to forecast them with.

    Raises:
        SettingsError: A file of bars cannot be read, or is not one; the regressor cannot be built, or cannot learn; or the warm-up is too
            short for what is observed.
    """
    rules = Rules.of(config.rules)
    needed = rules.warmup_bars()
    if 0 < config.prices.warmup_bars < needed:
        problem = f"expected at least the {needed} bars that the rules look back at, received {config.prices.warmup_bars}"
        raise SettingsError("prices.warmup_bars", "", problem)
    try:
        try_out(config.regressor, INPUTS)
    except ValueError as error:
        raise SettingsError("regressor", "", str(error)) from error
    recorded = config.prices.recorded
    known = () if recorded is None else recorded.files.columns
    if missing := [column for column in rules.columns() if column not in known]:
        expected = f"{', '.join(missing)}, which the observers of the rules read"
        raise SettingsError("prices.recorded.files.columns", "", f"expected {expected}, received {', '.join(known) or 'none'}")
    try:
        source = make_source(config.prices, config.episodes_seed, reach=reach_of(rules))
    except OSError as error:
        raise SettingsError("prices.recorded", "", f"expected a readable file, received {error.filename}: {error.strerror}") from error
    except SettingsError as error:
        key = error.key if error.key.startswith("prices.") else f"prices.recorded.{error.key}"
        raise SettingsError(key, "", error.problem) from error
    except FileFaultError as error:
        raise SettingsError("prices.recorded.files", "", str(error)) from error
    except ValueError as error:
        raise SettingsError("prices", "", str(error)) from error
    for note in source.notes[:_LOGGED_NOTES]:
        logger.info("prices: %s", note)
    if len(source.notes) > _LOGGED_NOTES:
        logger.info("prices: and %d more; the summary has all", len(source.notes) - _LOGGED_NOTES)
    return source


def joined(config: PipelineConfig, policy: PolicyClient, stop: StopSignals) -> PipelineConfig:
    """Return the settings with what they leave to the server: the name of the run, and which of its pipelines this is.

    Waits for the server, if they leave it something.

    Raises:
        HandshakeError: It is the wrong server; AuthenticationError: it wants another token.
        StoppedEarlyError: `stop` had a reason before there was a server.
    """
    if config.recording.run is not None and config.worker_number is not None:
        return config
    info = _first_answer(config, policy, stop)
    run = config.recording.run or info.run or UNNAMED_RUN
    number = policy.client_number if config.worker_number is None else config.worker_number
    logger.info("run %s, worker number %s", run, number)
    return dataclasses.replace(config, recording=dataclasses.replace(config.recording, run=run), worker_number=number)


def _first_answer(config: PipelineConfig, policy: PolicyClient, stop: StopSignals) -> ServerInfo:
    waits = False
    while True:
        try:
            return policy.connect()
        except (HandshakeError, AuthenticationError):
            raise
        except PolicyServerError as error:
            if not waits:
                logger.warning("waiting for the policy server at %s (%s)", config.server.address, error)
            waits = True
        with contextlib.suppress(TimeoutError):
            reason = stop.wait(_RETRY_S)
            raise StoppedEarlyError(f"{reason}: stopped before there was a policy server at {config.server.address}")


@contextmanager
def closing_sink(config: PipelineConfig) -> Iterator[Sink]:
    """Open the configured sinks, and store what they took when the block is left.

    Raises:
        SettingsError: The environment or the file describes an InfluxDB incompletely, or influxdb-client is not installed.
        OSError: The folder of points that wait for InfluxDB can't be made.
        sqlite3.Error: The store can't be opened.
    """
    recording = config.recording
    try:
        sink = prepared(recording, recording.store, (recording.store or _WITHOUT_STORE).parent)()
    except ValueError as error:
        raise SettingsError("recording", "", str(error)) from error
    try:
        yield sink
    finally:
        sink.close(SINK_CLOSE_S)


ENDED = "ended"
"""The reason to stop when the pipeline has ended, or has failed."""

EVENTS_FULL = "the event log is full"
"""The reason to stop when `recording.when_events_full` wants it."""

LAST_ANSWER_S = 10.0
"""Longest wait for what the server says after the last episode, seconds."""


def wait_for_end(pipeline: Pipeline, stop: StopSignals) -> str:
    """Wait until the pipeline has ended or is to stop; return the reason. Raises as `StopSignals.wait` does."""
    pipeline.run.when_ended(lambda: stop.put(ENDED))
    return stop.wait()


def run_pipeline(config: PipelineConfig, stop: StopSignals, json: Path | None = None) -> Pipeline:
    """Run a pipeline until it ends or `stop` has a reason, then end every episode, store every point and write the summary.

    Args:
        config: The settings.
        stop: Ends the run.
        json: Where the summary is written besides the run's folder.

    Raises:
        InsecureTargetError: The server is off this machine, and certificate or token are missing.
        SettingsError: The prices cannot be made, or a setting of server or recording cannot be used.
        HandshakeError: The server is another one, or of another run.
        StoppedEarlyError: `stop` had a reason before there was a server.
        BaseException: Whatever made a node fail for good.
    """
    source, seed = source_of(config), config.episodes_seed  # prices that cannot be made are refused before there is a server
    with ExitStack() as stack:
        policy = stack.enter_context(connect(config))
        sink = stack.enter_context(closing_sink(config))
        metrics = PipelineMetrics(config, sink)
        stack.enter_context(metrics.served())
        config = joined(config, policy, stop)
        if config.episodes_seed != seed:
            source = source_of(config)
        folder, log = None, None
        if config.recording.run_folder is not None:
            folder = _made(config.recording.run_folder, config.seed)
            log = stack.enter_context(recorded_run(config, folder, lambda: stop.put(EVENTS_FULL)))
        pipeline = Pipeline(config, policy, sink, source=source, turns=log)
        watch = ServerWatch(policy, sink, pipeline.tags)
        metrics.follow(pipeline, watch, policy)
        stack.callback(watch.stop)
        with pipeline.running():
            watch.start()
            symbols = ", ".join(pipeline.symbols)
            logger.info("trading %d episodes of %s against %s", config.episodes.concurrent, symbols, config.server.address)
            logger.info("stopping: %s", wait_for_end(pipeline, stop))
        with contextlib.suppress(TimeoutError):
            watch.flush().result(LAST_ANSWER_S)
    _summarise(pipeline, watch, log, [folder / SUMMARY_FILE] if folder else [], [json] if json else [])
    logger.info("stopped after %d steps, %d episodes", pipeline.run.steps, sum(pipeline.run.endings.values()))
    return pipeline


def _made(pattern: Path, seed: int) -> Path:
    """Make the run's folder.

    Raises:
        SettingsError: It can't be made.
    """
    try:
        return folder_of(pattern, seed)
    except OSError as error:
        raise SettingsError("recording.run_folder", "", f"expected a folder that can be made, received {pattern}: {error}") from error


def _summarise(pipeline: Pipeline, watch: ServerWatch, log: TurnLog | None, *paths: list[Path]) -> None:
    """Write the summary of a run that has stopped."""
    recorded, store = Ledger(0, math.nan), pipeline.config.recording.store
    if store is not None:
        with contextlib.closing(StoreReader(store)) as reader:
            recorded = reader.ledger(pipeline.tags["run"], pipeline.tags["worker"])
    summary = summarise(pipeline, watch, recorded, log, episodes_leaked=watch.episodes_open, server_restarts=watch.server_restarts)
    for path in itertools.chain(*paths):
        summary.write(path)
        logger.info("summary: %s", path)
