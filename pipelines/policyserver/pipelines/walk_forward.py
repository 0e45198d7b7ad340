"""A walk-forward in one run: each fold is trained on, then tested, against one server; the test parts' steps are not learnt from.

Each part is a pipeline of its own, so that no episode of one is open while another is played. The weights of a test part are those that the
training before it left: no step reaches the learner meanwhile, and the test begins once the learner has come to rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from policyserver.common.errors import PolicyServerError
from policyserver.pipelines.comparison.comparison import POLICY, Comparison
from policyserver.pipelines.comparison.kept_episodes import EpisodeSample
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.split import Side
from policyserver.pipelines.market.windows import WindowsConfig
from policyserver.pipelines.run import ENDED, EndedRun, connect, joined, made_folder, play_once, source_of
from policyserver.pipelines.runtime.stop_signals import StopSignals
from policyserver.pipelines.summary import Summary, without_nan

logger = logging.getLogger(__name__)

WALK_FORWARD_FILE = "walk_forward.json"
"""The figures of all parts, in the run folder."""

_REST_S = 3.0
"""Seconds without new weights after which the learner is taken to rest."""

_LONGEST_WAIT_S = 60.0
"""Longest wait for that, seconds."""

_ASK_S = 0.25

_SIDES: tuple[Side, Side] = ("train", "test")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a fold that is to be played."""

    fold: int
    side: Side
    config: PipelineConfig
    """The run's settings, for this part alone."""


@dataclass(frozen=True, slots=True)
class PartFigures:
    """A part of a fold in figures."""

    fold: int
    part: Side
    weights_seq_no_before: int | None
    """Policy version that was served before it; None: the server did not answer."""
    summary: Summary
    """As of any run; its `weights_seq_no` is the version served after it."""

    @property
    def is_frozen(self) -> bool:
        """Whether one version acted from the first step to the last."""
        return self.weights_seq_no_before == self.summary.weights_seq_no


@dataclass(frozen=True, slots=True)
class WalkForwardSummary:
    """A walk-forward in figures."""

    parts: tuple[PartFigures, ...]
    """The parts that were played, in their order."""
    train: Comparison | None
    """Measures of the training parts' newest whole episodes, all folds together; None without any."""
    test: Comparison | None
    """Those of all whole episodes of the test parts, or of an even part of them."""

    def write(self, path: Path) -> None:
        """Write it as JSON; figures that are not known are null."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(without_nan(dataclasses.asdict(self)), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def table(self) -> str:
        """Return it as text: a line for each part, then the test parts together beside other policies."""
        rows = [("part", "episodes, weights, and of whole episodes the median, and the range from 5 to 95 % of them")]
        for part in self.parts:
            of, before = part.summary, part.weights_seq_no_before
            weights = f"weights {of.weights_seq_no}" if part.is_frozen else f"weights {before} to {of.weights_seq_no}"
            figures = f"of {of.comparison.which()}: {of.comparison.text(POLICY)}" if of.comparison else "no whole episode"
            rows.append((f"{part.part} {part.fold}", f"{of.episodes_finished:,} episodes, {weights}, {figures}"))
        if self.test:
            rows += [("all tests", ""), *self.test.rows()]
        return "".join(f"{name:<18}{text}\n" for name, text in rows)


def fold_parts(config: PipelineConfig) -> list[Part]:
    """Return the parts of a walk-forward, each with the episodes that it ends after.

    Raises:
        SettingsError: The prices of a part can't be made; see `source_of`.
    """
    split, concurrent = config.prices.split, config.episodes.concurrent
    parts: list[Part] = []
    first_round = int(config.episodes.begins.max())
    if split is None:
        return parts
    for fold in range(split.folds):
        for side in _SIDES:
            order: Literal["random", "sequential"] = "random" if side == "train" else "sequential"
            windows = dataclasses.replace(config.prices.windows, order=order, fold_episodes=WindowsConfig().fold_episodes)
            prices = dataclasses.replace(config.prices, split=dataclasses.replace(split, play=side, fold=fold), windows=windows)
            own = dataclasses.replace(config, prices=prices)
            n_windows = source_of(own).n_windows
            count = config.prices.windows.fold_episodes if side == "train" else n_windows
            if side == "test":  # the first of its numbers is a multiple of the windows, so that it begins with the first window
                lap = n_windows // math.gcd(n_windows, concurrent)
                first_round = -(-first_round // lap) * lap
            episodes = dataclasses.replace(config.episodes, count=count, first_round=first_round, first_rounds=())
            parts.append(Part(fold, side, dataclasses.replace(own, episodes=episodes)))
            first_round += -(-count // concurrent)  # no name of an episode comes twice
    return parts


def run_walk_forward(config: PipelineConfig, stop: StopSignals, json: Path | None = None) -> WalkForwardSummary:
    """Play the parts of all folds, one after the other, until they are done or `stop` has a reason; write what came of them.

    Args:
        config: The settings, with `prices.split.play = "both"`.
        stop: Ends the run.
        json: Where the summary is written besides the run's folder.

    Raises:
        SettingsError: The prices of a part cannot be made; and as `run_pipeline`.
    """
    parts = fold_parts(config)  # what cannot be played is refused before there is a server
    with connect(config) as policy:
        config = joined(config, policy, stop)
    folder = None if config.recording.run_folder is None else made_folder(config.recording.run_folder, config.seed)
    summary, _ = play_parts(fold_parts(keeping(config, len(parts))), stop, lambda part: play_once(part.config, stop, folder=folder))
    for path in (*([folder / WALK_FORWARD_FILE] if folder else []), *([json] if json else [])):
        summary.write(path)
        logger.info("summary of all parts: %s", path)
    return summary


def is_walk_forward(config: PipelineConfig) -> bool:
    """Tell whether a run plays training and testing, of each fold, one after the other."""
    return config.prices.split is not None and config.prices.split.play == "both"


def keeping(config: PipelineConfig, n_parts: int) -> PipelineConfig:
    """Return the settings so that all parts of a walk-forward are kept in the run's folder."""
    if config.recording.keep_runs is None:
        return config
    keep = max(config.recording.keep_runs, n_parts)
    return dataclasses.replace(config, recording=dataclasses.replace(config.recording, keep_runs=keep))


def play_parts(parts: Sequence[Part], stop: StopSignals, play: Callable[[Part], EndedRun]) -> tuple[WalkForwardSummary, str]:
    """Play the parts of all folds, one after the other, until they are done or one has ended for another reason.

    Args:
        parts: At least one.
        stop: Ends the run.
        play: Plays a part.

    Returns:
        The figures, and the reason why the last part ended.
    """
    played: list[PartFigures] = []
    kept: dict[Side, list[EpisodeSample]] = {"train": [], "test": []}
    for part in parts:
        logger.info("fold %d, %s: %d episodes", part.fold, part.side, part.config.episodes.count or 0)
        before = weights_before(part, stop)
        ran = play(part)
        played.append(PartFigures(part.fold, part.side, before, ran.summary))
        kept[part.side].append(ran.pipeline.kept_episodes)
        if part.side == "test" and not played[-1].is_frozen:
            logger.warning("fold %d, test: the weights changed from version %s to %d", part.fold, before, ran.summary.weights_seq_no)
        if ran.reason != ENDED:
            break
    train, test = (ran.pipeline.compare(EpisodeSample.together(kept[side])) for side in _SIDES)
    return WalkForwardSummary(tuple(played), train, test), ran.reason


def weights_before(part: Part, stop: StopSignals) -> int | None:
    """Return the version that is served before a part; None if the server does not answer. A test waits until the learner rests."""
    began = changed = time.monotonic()
    newest = None
    with connect(part.config) as policy:
        while True:
            try:
                stats = policy.stats()
            except PolicyServerError as error:
                logger.warning("fold %d, %s: no statistics from the server: %s", part.fold, part.side, error)
                return None
            now = time.monotonic()
            seen = stats.weights_seq_no, stats.training.iteration if stats.training else 0
            if seen != newest:
                newest, changed = seen, now
            if part.side == "train" or now - changed >= _REST_S:
                return newest[0]
            if now - began >= _LONGEST_WAIT_S:
                logger.warning("fold %d, test: the learner has not come to rest within %g s", part.fold, _LONGEST_WAIT_S)
                return newest[0]
            with contextlib.suppress(TimeoutError):
                stop.put(stop.wait(_ASK_S))
                return newest[0]
