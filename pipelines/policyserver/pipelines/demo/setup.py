"""The set-up of a demo: the user's choices become a run folder with the settings of the pipeline and the server."""

from __future__ import annotations

import dataclasses
import logging
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge

from policyserver.common.settings import Config, SettingsError, dump_toml, format_value, load
from policyserver.common.whole_file import writing_whole
from policyserver.pipelines.config import PipelineConfig, ServerConnectionConfig
from policyserver.pipelines.demo.played_rounds import played_rounds
from policyserver.pipelines.forecast.state_file import STATE_FILE, ForecastState
from policyserver.pipelines.forecast_start import start_of
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.registry import Choice
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.space_tables import server_tables
from policyserver.pipelines.prices import PriceSource
from policyserver.pipelines.prices.config import OF_SIMULATED, PricesConfig, make_slots
from policyserver.pipelines.replay.run_folder import PIPELINE_FILE, START_FILE, new_run_folder, newest_run_folder, parts_of, put_aside
from policyserver.pipelines.run import source_of
from policyserver.pipelines.walk_forward import fold_parts, is_walk_forward, keeping

logger = logging.getLogger(__name__)

DEFAULT_STEPS = 300_000
"""Steps of a demo: enough to see the policy learn."""

SERVER_FILE = "demo_server.toml"
"""The server's settings, in the run folder."""

DEMO_SERVER = Path(__file__).with_name("demo_server.toml")
"""The server's settings of a demo, unless the user names others."""

MARKETS = {path.stem: path for path in sorted(Path(__file__).with_name("markets").glob("*.toml"))}
"""The shipped set-ups: a pipeline's settings by name."""

DEFAULT_MARKET = "ou"
"""The set-up that is played unless the user chooses another."""

WALK_FORWARD_SETTINGS = "walk_forward.toml"
"""The settings of a walk-forward as a whole, in the run folder, in which the pipeline's settings are those of the part that is played."""

STORE_FILE = "store.sqlite"
"""The embedded store, in the run folder; the server records its training there too."""

_AFTER_RUN_SETTINGS = "\n\n"
"""Separates this run's own settings of the server from the chosen ones, in the run folder's file."""

_OF_THE_RUN = {
    "seed": "--seed",
    "market": "--market",
    "config": "--config",
    "files": "--prices",
    "episodes": "--episodes",
    "server": "--server",
}
"""What a run keeps when it is resumed, with the options that choose it."""

_CONNECT_S = 2.0
_EPISODES_END_S = 3.0


@dataclass(frozen=True, slots=True)
class DemoConfig(Config):
    """What a user may choose."""

    seed: Annotated[int, Ge(0)] | None = None
    """Of prices, initial weights and sampled actions; None: the set-up's."""
    market: str = DEFAULT_MARKET
    """Which of the shipped set-ups is played: prices, actions, rewards."""
    config: Path | None = None
    """A pipeline's settings of one's own, in place of a shipped set-up; server, worker number, store and run folder are the demo's."""
    files: tuple[Path, ...] = ()
    """Files of bars to trade instead of the set-up's prices."""
    episodes: Annotated[int, Ge(1)] | None = None
    """Concurrent episodes; None: the set-up's."""
    steps: Annotated[int, Ge(1)] | None = None
    """Steps after which the demo ends; None: the set-up's, or `DEFAULT_STEPS`."""
    json: Path | None = None
    """File for the summary."""
    resume: bool = False
    """Whether to continue the newest run folder."""
    show_prediction: bool = True
    """Whether the policy sees the regressor's forecast."""
    server: Path = DEMO_SERVER
    """The server's settings, a TOML file without run_folder, seed, listen.address and spaces."""
    runs: Path = Path("runs")
    """Folder of the run folders."""

    def _check(self) -> None:
        defaults = {each.name: each.default for each in dataclasses.fields(self)}
        if self.resume and (given := [option for name, option in _OF_THE_RUN.items() if getattr(self, name) != defaults[name]]):
            raise ValueError(f"resume: a resumed run keeps its prices, rules, seed, episodes and server: leave {', '.join(given)} out")
        if self.market not in MARKETS:
            raise ValueError(f"market: expected {', '.join(MARKETS)}, received {self.market!r}")
        if self.config and self.market != DEFAULT_MARKET:
            raise ValueError(f"config: expected none beside --market {self.market}, received {self.config}")
        if not self.server.is_file():
            raise ValueError(f"server: expected a TOML file with the server's settings, received none at {self.server}")
        try:
            if "spaces" in tomllib.loads(self.server.read_text(encoding="utf-8")):
                raise ValueError(f"server: expected settings without [spaces], which follow from the rules, received {self.server}")
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"server: expected TOML, received {self.server}: {error}") from error


def fresh_run(options: DemoConfig, address: str) -> tuple[Path, PipelineConfig]:
    """Make a run folder and the settings of a new run in it, with a server on `address`.

    Raises:
        SettingsError: The prices cannot be made.
    """
    config = load(PipelineConfig, options.config or MARKETS[options.market])
    prices = _on_files(config.prices, options.files) if options.files else config.prices
    rules = config.rules if options.show_prediction else dataclasses.replace(config.rules, observers=_without_forecast(config.rules))
    concurrent, steps = options.episodes or config.episodes.concurrent, options.steps or config.episodes.steps or DEFAULT_STEPS
    is_walk = is_walk_forward(config)
    if is_walk and options.steps:
        raise SettingsError("--steps", "option", f'expected none with prices.split.play = "both", received {options.steps}')
    config = dataclasses.replace(
        config,
        seed=config.seed if options.seed is None else options.seed,
        worker_number=0,
        server=ServerConnectionConfig(address=address, connect_timeout_s=_CONNECT_S),
        episodes=dataclasses.replace(config.episodes, concurrent=concurrent, steps=None if is_walk else steps),
        prices=prices,
        rules=rules,
        stop_timeout_s=_EPISODES_END_S,
    )
    try:
        for each in [part.config for part in fold_parts(config)] if is_walk else [config]:
            start_of(each, source_of(each))  # prices that cannot be made are refused before there is a folder
    except SettingsError as error:
        where = " (in a file of settings, for --config)" if options.files and error.key.startswith("prices") else ""
        raise SettingsError(error.key, "", error.problem + where) from error
    folder = new_run_folder(options.runs, config.seed)
    recording = dataclasses.replace(config.recording, run=folder.name, policy="PPO", store=folder / STORE_FILE, run_folder=folder)
    config = dataclasses.replace(config, recording=recording)
    if is_walk:
        config = keeping(config, len(fold_parts(config)))
        (folder / WALK_FORWARD_SETTINGS).write_text(dump_toml(config), encoding="utf-8")
    return folder, _written(config, folder, options.server.read_text(encoding="utf-8"))


def _on_files(prices: PricesConfig, files: tuple[Path, ...]) -> PricesConfig:
    """Return the settings of the bars of files, read as those of recorded bars say that there are."""
    paths = tuple(str(path) for path in files)
    recorded = dataclasses.replace(prices.recorded, paths=paths) if prices.recorded else CatalogConfig(paths)
    try:
        usual = PricesConfig()
        of_simulated = {name: getattr(usual, name) for name in OF_SIMULATED}
        return dataclasses.replace(prices, **of_simulated, process=usual.process, recorded=recorded)
    except SettingsError as error:
        raise SettingsError(f"prices.{error.key}", "", error.problem) from error


def _without_forecast(rules: RulesConfig) -> tuple[Choice, ...]:
    """Return the observers with zeros in the place of the forecast."""
    hidden: Choice = {"name": "forecast", "shown": False}
    return tuple(hidden if choice == "forecast" else choice for choice in rules.observers)


def newest_run(options: DemoConfig) -> Path:
    """Return the folder of the run to resume.

    Raises:
        SettingsError: There is no run.
    """
    try:
        return newest_run_folder(options.runs, SERVER_FILE)
    except FileNotFoundError as error:
        raise SettingsError("--resume", "option", str(error)) from error


def resumed_run(folder: Path, options: DemoConfig, address: str) -> PipelineConfig:
    """Return the settings of a run, for as many further steps as the options say, with a server on `address`.

    What the run has left in its folder is put aside, so that the folder must be claimed before.

    Raises:
        SettingsError: Its settings cannot be read, or the prices cannot be made any more.
    """
    if (folder / WALK_FORWARD_SETTINGS).exists():
        problem = f"expected another run than a walk-forward, whose parts belong together, received {folder}: begin it anew"
        raise SettingsError("--resume", "option", problem)
    config = load(PipelineConfig, folder / PIPELINE_FILE)
    source = source_of(config)  # prices that cannot be made are refused before anything is moved
    _, _, chosen = (folder / SERVER_FILE).read_text(encoding="utf-8").partition(_AFTER_RUN_SETTINGS)
    begins = np.maximum(played_rounds(folder / STORE_FILE, config), config.episodes.begins)
    put_aside(folder)
    if not source.is_recorded:
        config, state = _going_on(config, folder, source)
        before = state.episodes.get(config.episodes_seed, 0) if state is not None else 0
        # It may have learnt of episodes that were cut off before they were recorded, and each round has prices of its own.
        begins[:] = max(int(begins.max()), -(-before // config.episodes.concurrent))
    config = dataclasses.replace(
        config,
        server=dataclasses.replace(config.server, address=address),
        episodes=dataclasses.replace(config.episodes.after(begins), steps=options.steps or DEFAULT_STEPS),
    )
    return _written(config, folder, chosen)


def _going_on(config: PipelineConfig, folder: Path, source: PriceSource) -> tuple[PipelineConfig, ForecastState | None]:
    """Return the settings with what the forecaster of a run of simulated prices has learnt, and that; None: it begins anew.

    That is what the newest part has left, or else what it began with: a part that was killed may have left nothing. Recorded bars are
    learnt again, in their order, up to the bar that is forecast.

    Raises:
        SettingsError: The user's own choice of a state can't be used.
    """
    for path in [part / name for part in parts_of(folder)[-1:] for name in (STATE_FILE, START_FILE) if (part / name).exists()]:
        try:
            going_on = _beginning_with(config, path)
            return going_on, start_of(going_on, source, is_joined=False)
        except SettingsError as error:
            logger.warning("%s: the forecaster can't go on with it: %s", path, error.problem)
    if config.regressor.state is not None and config.regressor.state.is_relative_to(folder):
        config = _beginning_with(config, None)
    state = start_of(config, source, is_joined=False)
    if state is None:
        logger.warning("the forecaster begins anew")
    return config, state


def _beginning_with(config: PipelineConfig, state: Path | None) -> PipelineConfig:
    return dataclasses.replace(config, regressor=dataclasses.replace(config.regressor, state=state, state_sha256=None))


def _written(config: PipelineConfig, folder: Path, server: str) -> PipelineConfig:
    """Write the settings of the pipeline into the folder, and those of the server: this run's own, then the chosen ones."""
    _write(folder / PIPELINE_FILE, dump_toml(config))
    spaces = server_tables(Rules.of(config.rules), make_slots(config.prices))
    own = {"run_folder": str(folder), "seed": config.seed, "listen.address": config.server.address} | spaces
    run_settings = "\n".join(f"{key} = {format_value(value)}" for key, value in own.items())
    _write(folder / SERVER_FILE, f"{run_settings}{_AFTER_RUN_SETTINGS}{server}")
    return config


def _write(path: Path, text: str) -> None:
    with writing_whole(path) as part:
        part.write_text(text, encoding="utf-8")
