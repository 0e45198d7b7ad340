"""`policy-pipeline demo`: a policy server as its own process, the pipelines, the live page, the terminal view, and the summary."""

from __future__ import annotations

import dataclasses
import importlib.resources
import socket
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from monitoring.page.server import PageServer
from monitoring.reader import Ledger, StoreReader
from monitoring.sink import Sink
from pipelines.config import EpisodesSection, PipelineConfig, RecordingSection, ServerSection
from pipelines.pipeline import Pipeline
from pipelines.prices import PricesConfig
from pipelines.run import ENDED, closing_sink, connect, wait_for_end
from pipelines.run_folder import new_run_folder, newest_run_folder
from pipelines.server_process import ServerProcess
from pipelines.server_watch import ServerWatch
from pipelines.snapshot import SnapshotTaker
from pipelines.stop_signals import StopSignals
from pipelines.summary import Summary, summarise
from pipelines.terminal import TerminalView
from policyserver.settings import dump_toml, load

DEFAULT_STEPS = 400_000
"""Steps of a demo: enough to see the policy learn."""

_STEPS_WAITING_LIMIT = 5_000
"""A little more than a training batch: the learner never waits, and no step is older than two policy versions."""

_USUAL_PORT = 9900
_READY_TIMEOUT_S = 120.0
_EPISODES_END_S = 3.0
_SERVER_STOP_S = 6.5
_FLUSH_S = 5.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a user may choose."""

    seed: int = 0
    """Of prices, initial weights and sampled actions."""
    process: Literal["ou", "gbm"] = "ou"
    """Law of the simulated prices."""
    csv_files: tuple[Path, ...] = ()
    """Files of bars to trade instead of simulated prices."""
    episodes: int = 64
    """Concurrent episodes."""
    steps: int = DEFAULT_STEPS
    """Steps after which the demo ends."""
    json: Path | None = None
    """File for the summary."""
    resume: bool = False
    """Whether to continue the newest run folder."""
    show_prediction: bool = True
    """Whether the policy sees the regressor's forecast."""
    runs: Path = Path("runs")
    """Folder of the run folders."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo leaves behind."""

    summary: Summary
    """The run in figures."""
    folder: Path
    """Its run folder."""
    interrupted: bool
    """Whether it was stopped before it had its steps."""


def run_demo(options: DemoOptions, out: TextIO, stop: StopSignals) -> DemoResult:
    """Run the demo to its end and write the summary.

    Args:
        options: The user's choices.
        out: Where the view and the summary go.
        stop: Ends the demo early.

    Raises:
        ServerDiedError: The server did not start.
        FileNotFoundError: There is no run to resume.
        BaseException: Whatever made a node fail for good.
    """
    folder = newest_run_folder(options.runs) if options.resume else new_run_folder(options.runs, options.seed)
    out.write(f"{'resuming' if options.resume else 'new run'} {folder}\n")
    out.flush()
    config = _pipeline_config(options, folder)
    with ExitStack() as stack:
        server = ServerProcess(_write_server_config(config, folder), config.server.address, folder / "server.out")
        stack.callback(server.stop, _SERVER_STOP_S)
        server.start(on_death=stop.put)
        out.write(f"starting the policy server on {config.server.address} (log: {folder / 'server.out'})\n")
        out.flush()
        server.wait_until_serving(_READY_TIMEOUT_S)
        sink = stack.enter_context(closing_sink(config))
        page = PageServer(folder / "store.sqlite")
        stack.callback(page.close)
        out.write(f"live page: {page.address}\n")
        out.flush()
        before = _recorded(folder, config)
        pipeline, watch, leaked, reason = _play(config, sink, out, page.address, stop)
        sink.flush(_FLUSH_S)
        after = _recorded(folder, config)
        recorded = Ledger(after.steps - before.steps, after.reward_sum - before.reward_sum)
    summary = summarise(pipeline, watch, recorded, episodes_leaked=leaked, server_restarts=server.restarts)
    for path in (folder / "summary.json", *([options.json] if options.json else [])):
        summary.write(path)
    out.write(f"\n{summary.table()}{'run folder':<18}{folder}\n")
    out.flush()
    return DemoResult(summary, folder, interrupted=reason != ENDED)


def _play(config: PipelineConfig, sink: Sink, out: TextIO, page: str, stop: StopSignals) -> tuple[Pipeline, ServerWatch, int | None, str]:
    """Run the pipeline until `stop` has a reason; return it, what the server said last, the episodes it still held, and the reason."""
    with connect(config) as policy:
        pipeline = Pipeline(config, policy, sink)
        watch = ServerWatch(policy, pipeline.pacer, sink, pipeline.tags)
        headline = f"{config.recording.run}   {config.prices.process}   {', '.join(pipeline.symbols)}   page {page}   Ctrl-C ends"
        view = TerminalView(SnapshotTaker(pipeline, watch), out, lambda: headline)
        try:
            with pipeline.running():
                watch.start()
                view.start()
                reason = wait_for_end(pipeline, stop)
        finally:
            view.stop()
            watch.stop()
        stats = watch.ask()
    return pipeline, watch, stats.episodes_open if stats else None, reason


def _pipeline_config(options: DemoOptions, folder: Path) -> PipelineConfig:
    """Return the pipeline's settings: those of the options, or those of the run that is resumed; written into the folder."""
    file = folder / "pipeline.toml"
    address = _free_address()
    if options.resume:
        config = load(PipelineConfig, file)
        played = _episodes_recorded(folder)
        config = dataclasses.replace(
            config,
            server=dataclasses.replace(config.server, address=address),
            episodes=dataclasses.replace(config.episodes, steps=options.steps, first_round=-(-played // config.episodes.concurrent)),
        )
    else:
        prices = PricesConfig(process="csv", csv_files=options.csv_files) if options.csv_files else PricesConfig(process=options.process)
        config = PipelineConfig(
            seed=options.seed,
            server=ServerSection(address=address),
            episodes=EpisodesSection(
                concurrent=options.episodes,
                steps=options.steps,
                steps_waiting_limit=_STEPS_WAITING_LIMIT,
                show_prediction=options.show_prediction,
            ),
            prices=prices,
            recording=RecordingSection(run=folder.name, policy="PPO", store=folder / "store.sqlite"),
            stop_timeout_s=_EPISODES_END_S,
        )
    file.write_text(dump_toml(config), encoding="utf-8")
    return config


def _write_server_config(config: PipelineConfig, folder: Path) -> Path:
    """Write the server's configuration into the run folder and return its path."""
    text = importlib.resources.files("pipelines").joinpath("demo_server.toml").read_text(encoding="utf-8")
    tomllib.loads(text)  # a mistake in it is better found here
    own = {"run_folder": str(folder), "seed": config.seed, "listen.address": config.server.address}
    lines = "".join(f"{key} = {value!r}\n" if isinstance(value, int) else f'{key} = "{value}"\n' for key, value in own.items())
    file = folder / "demo_server.toml"
    file.write_text(lines + "\n" + text, encoding="utf-8")
    return file


def _free_address() -> str:
    """Return the usual address of a policy server, or another of this machine when somebody has that one."""
    for port in (_USUAL_PORT, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as listener:
                return f"127.0.0.1:{listener.getsockname()[1]}"
        except OSError:
            continue
    raise OSError("expected a free port on 127.0.0.1, found none")


def _recorded(folder: Path, config: PipelineConfig) -> Ledger:
    reader = StoreReader(folder / "store.sqlite")
    try:
        return reader.ledger(config.recording.run)
    finally:
        reader.close()


def _episodes_recorded(folder: Path) -> int:
    reader = StoreReader(folder / "store.sqlite")
    try:
        return reader.newest_ids()["episode"]
    finally:
        reader.close()
