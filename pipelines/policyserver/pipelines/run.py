"""`policy-pipeline run`: the pipeline against a policy server that runs elsewhere, until it is told to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
from policyserver.pipelines.forecast_start import saved_forecasts, start_of
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.pipeline import Pipeline, reach_of
from policyserver.pipelines.pipeline_metrics import PipelineMetrics
from policyserver.pipelines.prices import PriceSource, make_source
from policyserver.pipelines.prices.config import make_slots
from policyserver.pipelines.replay.run_folder import SUMMARY_FILE, folder_of
from policyserver.pipelines.replay.run_record import recorded_run
from policyserver.pipelines.runtime.stop_signals import StoppedEarlyError, StopSignals
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.pipelines.summary import Summary, summarise

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
            short for what is observed; or actions or a limit on risk don't fit the symbols that an episode has.
    """
    rules = Rules.of(config.rules)
    needed = rules.warmup_bars()
    if 0 < config.prices.warmup_bars < needed:
        problem = f"expected at least the {needed} bars that the rules look back at, received {config.prices.warmup_bars}"
        raise SettingsError("prices.warmup_bars", "", problem)
    try_out(config.regressor, INPUTS)
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
        section = "prices" if recorded is None else "prices.recorded"
        key = error.key if error.key.startswith("prices.") else f"{section}.{error.key}"
        raise SettingsError(key, "", error.problem) from error
    except FileFaultError as error:
        raise SettingsError("prices.recorded.files", "", str(error)) from error
    except ValueError as error:
        raise SettingsError("prices", "", str(error)) from error
    symbols, most = config.prices.symbols_per_episode, rules.actions.most_symbols()
    if most is not None and symbols > most:
        expected = f"a scheme for the {symbols} symbols of an episode, such as target_weight"
        raise SettingsError("rules.actions", "", f"expected {expected}, received {type(rules.actions).__name__}, for {most}")
    for number, limit in enumerate(rules.risk):
        if unknown := [name for name in limit.named_symbols if name not in source.slots]:
            problem = f"expected names among {', '.join(source.slots)}, as an episode calls its symbols, received {unknown[0]!r}"
            raise SettingsError(f"rules.risk[{number}].symbols", "", problem)
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
    logger.info("run %s, worker number %s, on the server %s at %s", run, number, info.instance_id or "without an id", config.server.address)
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


_SPACES = ("observation_space", "action_space")
"""What a refusal names when the spaces of rules and server differ."""


@contextmanager
def _naming_the_remedy() -> Iterator[None]:
    """Let a refusal of the spaces say which command prints those that the server needs."""
    try:
        yield
    except HandshakeError as error:
        if error.field not in _SPACES:
            raise
        remedy = "`policy-pipeline spaces`, with the options of this run, prints the [spaces] that the server's settings need for its rules"
        raise HandshakeError(f"{error.message}; {remedy}", field=error.field) from error


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
        HandshakeError: The server is another one, of another run, or has other spaces than the rules.
        StoppedEarlyError: `stop` had a reason before there was a server.
        BaseException: Whatever made a node fail for good.
    """
    played = play_once(config, stop, [json] if json else [])
    logger.info("stopped after %d steps, %d episodes", played.pipeline.run.steps, sum(played.pipeline.run.endings.values()))
    return played.pipeline


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that has ended."""

    pipeline: Pipeline
    """Stopped."""
    summary: Summary
    """It in figures."""
    reason: str
    """Why it ended: `ENDED`, `EVENTS_FULL`, or the name of a signal."""


def play_once(config: PipelineConfig, stop: StopSignals, paths: Sequence[Path] = (), folder: Path | None = None) -> EndedRun:
    """Do what `run_pipeline` does; see there.

    Args:
        config: The settings.
        stop: Ends the run.
        paths: Where the summary is written besides the run's folder.
        folder: The run's; None: as the settings say.
    """
    source, seed = source_of(config), config.episodes_seed  # prices that cannot be made are refused before there is a server
    start_of(config, source, is_joined=config.worker_number is not None)
    with _naming_the_remedy(), ExitStack() as whole, ExitStack() as stack:
        policy = stack.enter_context(connect(config))
        sink = stack.enter_context(closing_sink(config))
        metrics = PipelineMetrics(config, sink)
        stack.enter_context(metrics.served())
        config = joined(config, policy, stop)
        if config.episodes_seed != seed:
            source = source_of(config)
        start = start_of(config, source)
        log = None
        if config.recording.run_folder is not None:
            folder = folder or made_folder(config.recording.run_folder, config.seed)
            log = whole.enter_context(recorded_run(config, folder, lambda: stop.put(EVENTS_FULL), start))
            stack.callback(log.close)
        if start is not None:
            logger.info("the forecaster begins with what it learnt from %d labels: %s", start.learned, config.regressor.state)
        pipeline = Pipeline(config, policy, sink, source=source, turns=log, start=start)
        before = _recorded(pipeline)
        watch = ServerWatch(policy, sink, pipeline.tags)
        metrics.follow(pipeline, watch, policy)
        stack.callback(watch.stop)
        with saved_forecasts(pipeline, folder), pipeline.running():
            watch.start()
            symbols = ", ".join(pipeline.symbols)
            logger.info("trading %d episodes of %s against %s", config.episodes.concurrent, symbols, config.server.address)
            reason = wait_for_end(pipeline, stop)
            logger.info("stopping: %s", reason)
        with contextlib.suppress(TimeoutError):
            watch.flush().result(LAST_ANSWER_S)
        stack.close()  # now every point is stored
        after = _recorded(pipeline)
        recorded = Ledger(after.steps - before.steps, after.reward_sum - before.reward_sum)
        summary = summarise(pipeline, watch, recorded, log, episodes_leaked=watch.episodes_open, server_restarts=watch.server_restarts)
        for path in (*([folder / SUMMARY_FILE] if folder and log else []), *paths):
            summary.write(path)
            logger.info("summary: %s", path)
    return EndedRun(pipeline, summary, reason)


def made_folder(pattern: Path, seed: int) -> Path:
    """Make the run's folder.

    Raises:
        SettingsError: It can't be made.
    """
    try:
        return folder_of(pattern, seed)
    except OSError as error:
        raise SettingsError("recording.run_folder", "", f"expected a folder that can be made, received {pattern}: {error}") from error


def _recorded(pipeline: Pipeline) -> Ledger:
    """Return what the store has of this process's part of a run."""
    store = pipeline.config.recording.store
    if store is None:
        return Ledger(0, math.nan)
    with contextlib.closing(StoreReader(store)) as reader:
        return reader.ledger(pipeline.tags["run"], pipeline.tags["worker"])
