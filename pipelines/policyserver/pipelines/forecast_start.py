"""What the forecaster of a run begins with: read, and compared with what the run is configured for, before anything starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from policyserver.common.settings import SettingsError
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.forecast.forecasts import unlearnt_state, window_bars
from policyserver.pipelines.forecast.state_file import KEY, ForecastState, read_state, require_models
from policyserver.pipelines.forecast.state_saver import StateSaver
from policyserver.pipelines.pipeline import Pipeline
from policyserver.pipelines.prices import PriceSource
from policyserver.pipelines.prices.recorded import RecordedSource

logger = logging.getLogger(__name__)

_NAMED = 5
"""Symbols that a message names."""


def start_of(config: PipelineConfig, source: PriceSource, *, is_joined: bool = True) -> ForecastState | None:
    """Read and check what the configured forecaster begins with; None: it begins anew.

    A model must not forecast what it has learnt: of recorded symbols it may know no bar after the first action, of simulated episodes none
    that the run is to play.

    Args:
        config: Settings.
        source: The prices.
        is_joined: Whether it is known which episodes the run plays: a server that numbers its pipelines may give it others.

    Raises:
        SettingsError: The file can't be read or used; or the run would play prices that the models have learnt.
    """
    state = read_state(config.regressor)
    if state is None:
        return None
    state.require(unlearnt_state(config.regressor, window_bars(source), source.bar_intervals_ns, is_recorded=source.is_recorded))
    if isinstance(source, RecordedSource):
        _require_later_bars(state, source)
    elif is_joined:
        _require_other_episodes(state, config)
    require_models(state)
    return state


@contextmanager
def saved_forecasts(pipeline: Pipeline, folder: Path | None) -> Iterator[None]:
    """Save what a pipeline's forecaster learns into the run's folder, now and then and when the block is left without an error."""
    every_s = pipeline.config.regressor.save_every_s
    if folder is None or every_s is None:
        yield
        return
    saver = StateSaver(folder, pipeline.forecast_state, every_s)
    saver.start()
    try:
        yield
    except BaseException:
        saver.close(save=False)
        raise
    saver.close()


def _require_later_bars(state: ForecastState, source: RecordedSource) -> None:
    firsts = source.first_actions_ns
    new = [symbol for symbol in firsts if symbol not in state.models]
    if len(new) == len(firsts):
        raise SettingsError(KEY, "", f"expected models of {_names(list(firsts))}, received those of {_names(list(state.models))}")
    for symbol in new:
        logger.warning("%s: has no model of %s, which begins anew", KEY, symbol)
    for symbol, first in firsts.items():
        until = state.models[symbol].until_ns if symbol in state.models else None
        if until is not None and until > first:
            problem = f"a state that has learnt the bars until {_date(until)}: its forecasts of them would be known beforehand"
            raise SettingsError(KEY, "", f"expected one of {symbol} that ends by {_date(first)}, the first action, received {problem}")


def _require_other_episodes(state: ForecastState, config: PipelineConfig) -> None:
    first, before = int(config.episodes.begins.min()) * config.episodes.concurrent, state.episodes.get(config.episodes_seed, 0)
    if first < before:
        rounds = -(-before // config.episodes.concurrent)
        expected = f"expected episodes that it has not learnt (episodes.first_round = {rounds} or more, or another seed)"
        raise SettingsError(
            KEY, "", f"{expected}, received a state that has learnt those before {before} of this seed, and a run from {first}"
        )


def _names(symbols: list[str]) -> str:
    return ", ".join(symbols[:_NAMED]) + (f" and {len(symbols) - _NAMED} more" if len(symbols) > _NAMED else "")


def _date(time_ns: int) -> str:
    return f"{np.datetime64(time_ns, 'ns').astype('datetime64[s]')}Z"
