"""The rules of an episode: what an action means, what is observed, what a step is worth, when it is over, and on which terms it trades."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from gymnasium.spaces import Box

from policyserver.common.settings import Config, SettingsError
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.orders import Reason
from policyserver.pipelines.market.registry import Choice
from policyserver.pipelines.market.risk import LIMITS, RiskLimit
from policyserver.pipelines.market.running_statistics import Statistic
from policyserver.pipelines.market.schemes.actions import ACTIONS, ActionScheme
from policyserver.pipelines.market.schemes.actions.action_scheme import MOST_LABEL_LETTERS
from policyserver.pipelines.market.schemes.ends import ENDS, End
from policyserver.pipelines.market.schemes.observers import OBSERVERS, Observer
from policyserver.pipelines.market.schemes.observers.refusals import Refusals
from policyserver.pipelines.market.schemes.rewards import REWARDS, RewardTerm
from policyserver.pipelines.market.schemes.scheme import Scheme

MOST_LIMITS = 100
"""Limits on risk: the event log has a byte for the reason of a refusal."""


@dataclass(frozen=True, slots=True)
class RulesConfig(Config):
    """The rules of an episode. A part is chosen by its name, or by a table of its name and what is set of it."""

    actions: Choice = "sell_hold_buy"
    """What an action means."""
    observers: tuple[Choice, ...] = ("returns", "distances", "volatility", "forecast", "position", "unrealised_profit", "time_left")
    """What the policy sees, in the order in which it stands in the observation."""
    rewards: tuple[Choice, ...] = ("log_equity",)
    """The terms whose sum a step is worth."""
    ends: tuple[Choice, ...] = ("ruin",)
    """What ends an episode before its data do; of several that are reached at one bar, the first is the reason."""
    risk: tuple[Choice, ...] = ()
    """Limits on risk, which every order passes before it is submitted, in this order; none unless they are named."""
    account: AccountConfig = field(default_factory=AccountConfig)
    """Money, leverage and margin."""
    instrument: InstrumentConfig = field(default_factory=InstrumentConfig)
    """Grid, costs and limits of every symbol."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts that a `RulesConfig` chooses."""

    actions: ActionScheme
    observers: tuple[Observer, ...]
    rewards: tuple[RewardTerm, ...]
    ends: tuple[End, ...]
    risk: tuple[RiskLimit, ...]
    account: AccountConfig
    instrument: InstrumentConfig

    @classmethod
    def of(cls, config: RulesConfig, key: str = "rules") -> Rules:
        """Make the parts.

        Raises:
            SettingsError: A name is unknown, a field of a part is, or parts don't fit each other; the key begins with `key`.
        """
        rules = cls(
            ACTIONS.make(config.actions, f"{key}.actions"),
            tuple(OBSERVERS.make(choice, f"{key}.observers[{i}]") for i, choice in enumerate(config.observers)),
            tuple(REWARDS.make(choice, f"{key}.rewards[{i}]") for i, choice in enumerate(config.rewards)),
            tuple(ENDS.make(choice, f"{key}.ends[{i}]") for i, choice in enumerate(config.ends)),
            tuple(LIMITS.make(choice, f"{key}.risk[{i}]") for i, choice in enumerate(config.risk)),
            config.account,
            config.instrument,
        )
        for name, what in (("observers", "one, or the policy sees nothing"), ("rewards", "one, or a step is worth nothing")):
            if not getattr(rules, name):
                raise SettingsError(f"{key}.{name}", "", f"expected at least {what}, received none")
        if len(rules.risk) > MOST_LIMITS:
            raise SettingsError(f"{key}.risk", "", f"expected at most {MOST_LIMITS} limits, received {len(rules.risk)}")
        largest, leverage = rules.actions.largest_exposure(), config.account.max_leverage
        if largest > (leverage or 1.0):
            asked = f"for actions that ask for {largest:g} times the equity"
            problem = f"expected at least {largest:g}, {asked}, received {'none' if leverage is None else f'{leverage:g}'}"
            raise SettingsError(f"{key}.account.max_leverage", "", problem)
        for i, observer in enumerate(rules.observers):
            if isinstance(observer, Refusals) and observer.limits > len(rules.risk):
                problem = f"expected at most {len(rules.risk)}, the limits on risk that there are, received {observer.limits}"
                raise SettingsError(f"{key}.observers[{i}].limits", "", problem)
        return rules

    @property
    def end_names(self) -> tuple[str, ...]:
        """What the ends are called, in their order."""
        return tuple(type(end).__name__ for end in self.ends)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the reasons of order events are called, by their numbers: `Reason`s in small letters, and the limits on risk."""
        limits = (limit.label[:MOST_LABEL_LETTERS] for limit in self.risk)
        return (*(reason.name.lower() for reason in Reason if reason != Reason.RISK), *limits)

    @property
    def parts(self) -> Iterable[Scheme]:
        """All parts."""
        return (self.actions, *self.observers, *self.rewards, *self.ends, *self.risk)

    def warmup_bars(self) -> int:
        """Return the bars, that of the first action among them, which the parts must have seen."""
        return max(part.warmup_bars() for part in self.parts)

    def memory_bars(self) -> int:
        """Return the bars that the parts look back at or remember: a warm-up in which all of them have settled."""
        return max(self.warmup_bars(), *(statistic.memory_bars() for statistic in self.statistics()), 1)

    def columns(self) -> tuple[str, ...]:
        """Return the further columns of the bars that the parts read, each once."""
        return tuple(dict.fromkeys(column for part in self.parts for column in part.bar_columns()))

    def history_bars(self) -> int:
        """Return the bars that the parts look back at."""
        return max(part.history_bars() for part in self.parts)

    def statistics(self) -> frozenset[Statistic]:
        """Return the statistics that the parts read."""
        return frozenset(statistic for part in self.parts for statistic in part.statistics())

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """Return what each number of an observation is called, in their order."""
        return tuple(name for observer in self.observers for name in observer.names(symbols))

    def numbers(self, symbols: tuple[str, ...]) -> list[str]:
        """Return what each number of an observation is called, with the class of its observer before it, as "Returns: return_1"."""
        found = []
        for part in self.observers:
            names, size = part.names(symbols), int(np.prod(part.space(symbols).shape))
            found += [f"{type(part).__name__}: {names[place] if place < len(names) else place}" for place in range(size)]
        return found

    def observation_space(self, symbols: tuple[str, ...]) -> Box:
        """Return the space of a whole observation, one-dimensional."""
        low, high = self.bounds(symbols)
        return Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def bounds(self, symbols: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
        """Return the bounds of a whole observation, float64 (size,) each."""
        spaces = [observer.space(symbols) for observer in self.observers]
        low, high = ([np.zeros(0), *(getattr(space, end).ravel().astype(np.float64) for space in spaces)] for end in ("low", "high"))
        return np.concatenate(low), np.concatenate(high)
