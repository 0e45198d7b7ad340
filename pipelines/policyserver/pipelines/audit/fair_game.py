"""Does anything earn on a market in which nothing can be foretold and nothing costs? Then something is known too early.

The prices are a martingale, so the gain of a bar times anything that was known before it is 0 in the mean. What is known before it: the
forecast, each number that is observed, and the action.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.pipelines.audit.findings import CheckResult, PartAtFault
from policyserver.pipelines.audit.played import Played, play, prices_of
from policyserver.pipelines.audit.price_changes import FairMarket
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.rules import Rules

FALSE_ALARMS = 1 / 2000
"""Probability that a pipeline without fault is flagged, all rules together."""

_FREE: dict[str, Any] = dict.fromkeys(
    ("tick", "fee_fixed", "fee_per_unit", "fee_fraction", "fee_minimum", "spread_fraction", "slippage_fraction", "borrow_fraction"), 0.0
)
_FEW_ACTIONS = 8
_FRAMES_OF_A_PIECE = 8

Signs = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """Steps of all episodes, one after the other; n of them."""

    observed: FloatArray
    """(n, size), at the bar of the action."""
    change: FloatArray
    """What each number changed by since the bar before, (n, size); 0 at the first."""
    excess: FloatArray
    """Each number less its mean in the episode so far, (n, size)."""
    forecast: FloatArray
    """(n,), 0 where none is recorded."""
    action: Signs
    """Signs of the action, (n, c)."""
    returns: FloatArray
    """Simple returns of the bar after it, (n, K)."""
    gain: FloatArray
    """What the account gained in that bar, as a fraction of its equity, (n,)."""
    bar: IntArray
    """Number of that bar, (n,): steps of one bar are one piece of evidence."""


def check_fair_game(config: PipelineConfig, episodes: range, concurrent: int) -> CheckResult:
    """Play episodes at random on a fair market, and see what rules would have earned.

    Each rule goes long or short by a sign: of the forecast; of a number that is observed, of what it is above its mean so far, and of its
    change, these with each symbol, and with the account beside each action. Its gains D, summed for each bar of the market, are those of a
    martingale, so that sum(D) stays within z * sqrt(sum(D**2)) by a probability of at least 1 - 2 exp(-z**2 / 2): z is such that no rule
    leaves it in 1,999 of 2,000 runs.

    Raises:
        BaseException: What makes the pipeline fail.
    """
    free = replace(config.rules.instrument, **_FREE)
    config = replace(config, rules=replace(config.rules, instrument=free))
    source = prices_of(config, FairMarket(config.episodes_seed))
    played = play(config, source, episodes, concurrent=concurrent)
    rules = Rules.of(config.rules)
    steps = _steps(played, episodes, rules.actions.space(source.slots), source.is_recorded, config.rules.account.initial_equity)
    tests = list(_tests(steps, rules.numbers(source.slots), source.slots))
    count = sum(len(sums) for _, sums, _ in tests)
    z = math.sqrt(2.0 * math.log(2.0 * count / FALSE_ALARMS))
    faults = []
    for names, sums, squares in tests:
        for place in np.flatnonzero(np.abs(sums) > z * np.sqrt(squares)).tolist():
            edge, band = (1e4 * float(value[place]) / len(steps.gain) for value in (sums, z * np.sqrt(squares)))
            faults.append((abs(edge) / band, PartAtFault(names[place], f"earns {edge:+.3f} bp a bar, expected within {band:.3f} bp of 0")))
    ordered = tuple(fault for _, fault in sorted(faults, key=lambda each: -each[0]))
    width = z * math.sqrt(float(np.mean(np.square(steps.returns)))) / math.sqrt(max(len(np.unique(steps.bar)), 1))
    looked_at = f"{len(steps.gain):,} bars, {count:,} rules within {z:.1f} standard errors ({1e4 * width:.1f} bp a bar) of earning nothing"
    return CheckResult("fair game", looked_at, ordered)


def _steps(played: Played, episodes: range, space: gym.Space[Any], is_recorded: bool, initial_equity: float) -> _Steps:
    """Return the steps of the episodes that were played."""
    parts, times = [], []
    for place, number in enumerate(episodes):
        episode, observed = played.episodes[number], played.observations[number].astype(np.float64)
        recorded = played.recorded.get(number, {})
        equity = np.append(initial_equity, recorded["step.equity"].values) if "step.equity" in recorded else np.full(1, initial_equity)
        n = min(len(observed), len(equity)) - 1
        if n < 1:
            continue
        observed, at = observed[:n], played.bars_of(number)[: n + 1]
        closes = episode.bars.bars[episode.bars.warmup_bars - 1 :, :, 3][at]
        means = np.cumsum(observed, axis=0) / np.arange(1, n + 1)[:, None]
        forecast = recorded["step.prediction"].values[:n] if "step.prediction" in recorded else np.zeros(n)
        gain = np.divide(np.diff(equity[: n + 1]), equity[:n], out=np.zeros(n), where=equity[:n] > 0)
        change = np.diff(observed, axis=0, prepend=observed[:1])
        signs = _action_signs(played.actions[number][:n], space)
        parts.append((observed, change, observed - means, forecast, signs, np.diff(closes, axis=0) / closes[:-1], gain))
        symbol = "+".join(episode.symbols) if is_recorded else str(place)
        times.append((symbol, episode.bars.time_ns[episode.bars.warmup_bars - 1 :][at]))
    observed, change, excess, forecasts, actions, returns, gains = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Steps(observed, change, excess, forecasts, actions, returns, gains, _evidence(times))


def _evidence(times: list[tuple[str, IntArray]]) -> IntArray:
    """Return which piece of evidence each step is, int64 (n,): bars of one symbol that several episodes have are one.

    Where actions hold for several bars, episodes have parts of these in common; then a piece is of so many bars that the parts at its ends
    matter little.

    Args:
        times: Of each episode what it trades, and the ends of the bars at which it acted, the last one's too.
    """
    steps = np.concatenate([np.diff(at) for _, at in times])
    symbols = {symbol: number for number, symbol in enumerate(dict.fromkeys(symbol for symbol, _ in times))}
    of_symbol = np.concatenate([np.full(len(at) - 1, symbols[symbol]) for symbol, at in times])
    begins = np.concatenate([at[:-1] for _, at in times])
    if len(symbols) < len(times) and not _is_one_grid(of_symbol, begins, steps):
        begins //= _FRAMES_OF_A_PIECE * int(np.median(steps))
    pieces: IntArray = np.unique(np.stack([of_symbol, begins]), axis=1, return_inverse=True)[1].ravel()
    return pieces


def _is_one_grid(of_symbol: IntArray, begins: IntArray, steps: IntArray) -> bool:
    """Tell whether no step of a symbol ends within another of the symbol."""
    for symbol in range(int(of_symbol.max()) + 1):
        rows = of_symbol == symbol
        order = np.argsort(begins[rows], kind="stable")
        begin, end = begins[rows][order], (begins[rows] + steps[rows])[order]
        if (np.maximum.accumulate(end)[:-1] > begin[1:])[np.diff(begin) > 0].any():
            return False
    return True


def _action_signs(actions: npt.NDArray[Any], space: gym.Space[Any]) -> Signs:
    """Return signs that tell actions apart, (n, c)."""
    if isinstance(space, gym.spaces.Discrete):
        numbers = actions.astype(np.int64) - int(space.start)
        count = int(space.n)
        if count <= _FEW_ACTIONS:
            return np.where(numbers[:, None] == np.arange(count), 1.0, 0.0)
        actions = numbers[:, None] - (count - 1) / 2
    elif isinstance(space, gym.spaces.MultiDiscrete):
        actions = actions - (space.nvec - 1) / 2
    signs: Signs = np.sign(actions.astype(np.float64)).reshape(len(actions), -1)
    return signs


def _tests(steps: _Steps, names: list[str], slots: tuple[str, ...]) -> Iterator[tuple[list[str], FloatArray, FloatArray]]:
    """Yield names of rules with the sums of their gains and of the squares of these."""
    pieces = _Pieces(steps.bar)
    one = np.ones((len(steps.gain), 1))
    yield ["random policy"], *pieces.sums(one, steps.gain)
    yield [f"random policy, action {place}" for place in range(steps.action.shape[1])], *pieces.sums(steps.action, steps.gain)
    if steps.forecast.any():
        yield ["sign of the forecast"], *pieces.sums(np.sign(steps.forecast)[:, None], steps.returns[:, 0])
    for what, values in (("", steps.observed), (", above its mean so far", steps.excess), (", its change", steps.change)):
        signs = np.nan_to_num(np.sign(values))
        for symbol, slot in enumerate(slots):
            of = "" if len(slots) == 1 else f", with {slot}"
            yield [f"sign of observed {name}{what}{of}" for name in names], *pieces.sums(signs, steps.returns[:, symbol])
        if what != ", its change":
            for place in range(steps.action.shape[1]):
                acted = signs * steps.action[:, place : place + 1]
                yield [f"account, action {place} by the sign of observed {name}{what}" for name in names], *pieces.sums(acted, steps.gain)


class _Pieces:
    """Sums gains by the bars of the market, which are the pieces of evidence."""

    def __init__(self, bar: IntArray) -> None:
        self._order = np.argsort(bar, kind="stable")
        self._firsts = np.flatnonzero(np.diff(bar[self._order], prepend=-1))
        self._is_plain = len(self._firsts) == len(bar)

    def sums(self, signs: Signs, gains: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the sums over all bars of signs * gains, and of their squares, float64 (c,) each."""
        if self._is_plain:
            return gains @ signs, np.square(gains) @ np.square(signs)
        by_bar = np.add.reduceat((signs * gains[:, None])[self._order], self._firsts, axis=0)
        return by_bar.sum(axis=0), np.square(by_bar).sum(axis=0)
