"""Settings of the prices that episodes are played on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt

from policyserver.common.settings import Config, SettingsError
from policyserver.pipelines.market.catalog import CatalogConfig
from policyserver.pipelines.market.episode_source import MOST_SYMBOL_LETTERS
from policyserver.pipelines.market.frames import ALL_SYMBOLS, EACH_BAR, check_decide
from policyserver.pipelines.market.intervals import parse_interval
from policyserver.pipelines.market.processes import PROCESSES, PriceProcess
from policyserver.pipelines.market.registry import Choice
from policyserver.pipelines.market.split import SplitConfig
from policyserver.pipelines.market.unread import refuse_unread
from policyserver.pipelines.market.windows import WindowsConfig

_LONGEST_EPISODE_S = 6e9
"""190 years: times are counted in nanoseconds up to the year 2262."""

RECORDED = "recorded"
"""What stands in the place of a process's name where bars are recorded."""

OF_SIMULATED = ("symbols", "steps_per_bar", "bar_interval_s")
"""Settings of simulated bars alone."""


@dataclass(frozen=True, slots=True)
class PricesConfig(Config):
    """Which prices an episode is played on: simulated ones, or windows of recorded ones."""

    process: Choice = "ou"
    """The law of simulated prices, by its name or a table of its name and settings; `policy-pipeline processes` lists them."""
    recorded: CatalogConfig | None = None
    """Files of bars, which are traded in place of simulated prices; none: prices are simulated."""
    symbols: tuple[str, ...] = ("AAA", "BBB", "CCC", "DDD")
    """Symbols of simulated prices; those of recorded ones are the files'."""
    symbols_per_episode: Annotated[int, Ge(1)] = 1
    """Symbols that an episode trades at once; episode n has the next ones after episode n - 1, round and round."""
    bars_per_episode: Annotated[int, Ge(1)] = 200
    """Bars after the warm-up: the number of actions in an episode that is asked at each. Of recorded bars `windows.length` comes first."""
    warmup_bars: Annotated[int, Ge(0)] = 200
    """Bars seen before and at the first action; 0: as many as the rules and the forecaster look back at or remember."""
    decide: str = EACH_BAR
    """When the policy is asked: `each_bar`; `all_symbols`, once every symbol has had a bar of its own; or a length of time such as "5min",
    at the first bar that ends at or after each multiple of it. In between it keeps its positions; its reward is the sum."""
    decide_deadline: str = ""
    """With `all_symbols`: longest time since the first of these bars, such as "2min", after which it is asked without the others; "":
    none."""
    skip_frame: Annotated[int, Ge(1)] = 1
    """The policy is asked at each n-th of these bars alone."""
    steps_per_bar: Annotated[int, Ge(1)] = 4
    """Sub-steps a simulated bar is made of."""
    bar_interval_s: Annotated[float, Gt(0)] = 60.0
    """Length of a simulated bar in seconds."""
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    """Which windows of recorded bars are played."""
    split: SplitConfig | None = None
    """How recorded time is cut into training and testing; none: it is not."""

    def _check(self) -> None:
        check_decide(self.decide, "decide")
        if self.decide_deadline:
            parse_interval(self.decide_deadline, "decide_deadline")
            if self.decide != ALL_SYMBOLS:
                raise ValueError(f'decide_deadline: expected none without decide = "{ALL_SYMBOLS}", received {self.decide_deadline!r}')
        if self.recorded is not None:
            self._check_recorded(self.recorded)
            return
        for name, given, usual in (("windows", self.windows, WindowsConfig()), ("split", self.split, None)):
            if given is not None and given != usual:
                field_name = next((each for each in given.__slots__ if getattr(given, each) != getattr(usual, each, None)), "")
                received = getattr(given, field_name)
                raise ValueError(f"{name}.{field_name}: expected it with recorded prices alone, received {received!r} with simulated ones")
        if self.decide_deadline:
            raise ValueError(
                f"decide_deadline: expected none with simulated prices, whose bars are all there, received {self.decide_deadline!r}"
            )
        if self.bar_interval_s * self.n_bars > _LONGEST_EPISODE_S:
            raise ValueError(f"bar_interval_s: expected {self.n_bars} bars within {_LONGEST_EPISODE_S:g} s, received {self.bar_interval_s}")
        if not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"symbols: expected different names, at least one, received {self.symbols}")
        if (longest := max(self.symbols, key=len)) and len(longest) > MOST_SYMBOL_LETTERS:
            raise ValueError(f"symbols: expected names of at most {MOST_SYMBOL_LETTERS} letters, received {longest!r}")
        if self.symbols_per_episode > len(self.symbols):
            raise ValueError(f"symbols_per_episode: expected at most the {len(self.symbols)} symbols, received {self.symbols_per_episode}")
        self._check_process(self.make_process())

    def _check_process(self, process: PriceProcess) -> None:
        """Refuse names that are not those of a process's assets, and sub-steps that it has none of."""
        names, count = self.symbols, process.rows_per_episode
        if count > 1 and len(names) != count:
            raise ValueError(f"symbols: expected {count} names, one for each asset of the process, received {', '.join(names)}")
        if count > 1 and any(name in process.assets and name != asset for name, asset in zip(names, process.assets, strict=False)):
            expected = f"{', '.join(process.assets)} in the order of the process's assets, or other names"
            raise ValueError(f"symbols: expected {expected}, received {', '.join(names)}")
        if not process.has_sub_steps:
            refuse_unread(self, ("steps_per_bar",), "with a process that has bars without sub-steps")

    def _check_recorded(self, recorded: CatalogConfig) -> None:
        if self.process != "ou":
            raise ValueError(f"process: expected none beside recorded bars, received {self.process!r}")
        refuse_unread(self, OF_SIMULATED, "beside recorded bars, which have the symbols and times of the files in recorded.paths")
        if self.windows.length:
            refuse_unread(self, ("bars_per_episode",), "beside windows.length, which comes first")
        if self.windows.order != "walk_forward":
            try:
                refuse_unread(self.windows, ("fold_episodes",), 'without windows.order = "walk_forward"')
            except ValueError as error:
                raise ValueError(f"windows.{error}") from error
        if self.decide_deadline and self.symbols_per_episode == 1:
            raise ValueError(f"decide_deadline: expected none with one symbol in an episode, received {self.decide_deadline!r}")
        if self.windows.start == "session" and not recorded.files.calendar:
            raise ValueError('recorded.files.calendar: expected one with windows.start = "session", received none')
        if self.windows.order == "walk_forward" and (self.split is None or self.split.fold is not None):
            received = "no split" if self.split is None else f"split.fold = {self.split.fold}"
            raise ValueError(f'windows.order: expected a split of which all folds are played with "walk_forward", received {received}')
        if self.split is not None and self.split.play == "both" and self.windows.order != "walk_forward":
            raise ValueError(f'windows.order: expected "walk_forward" with split.play = "both", received {self.windows.order!r}')

    @property
    def plays_test(self) -> bool:
        """Whether the bars that are played are for testing."""
        return self.split is not None and self.split.play == "test"

    @property
    def part(self) -> str:
        """What the part of a split that is played is called, such as "train 0"; "" without a split."""
        if self.split is None:
            return ""
        return self.split.play if self.split.fold is None else f"{self.split.play} {self.split.fold}"

    @property
    def length_ns(self) -> int:
        """Time that an episode plays; 0: it is a number of bars."""
        return parse_interval(self.windows.length, "windows.length") if self.windows.length else 0

    @property
    def deadline_ns(self) -> int:
        """`decide_deadline` in nanoseconds; 0: none."""
        return parse_interval(self.decide_deadline, "decide_deadline") if self.decide_deadline else 0

    @property
    def n_bars(self) -> int:
        """Bars of an episode of simulated prices, warm-up included where it is set."""
        return self.warmup_bars + self.bars_per_episode

    @property
    def name(self) -> str:
        """What the prices are called in records: the name of the process, or `RECORDED`."""
        if self.recorded is not None:
            return RECORDED
        return self.process if isinstance(self.process, str) else str(self.process["name"])

    @property
    def catalogs(self) -> tuple[CatalogConfig, ...]:
        """The files of bars that the prices are, or that their process is made of."""
        return self.make_process().catalogs if self.recorded is None else (self.recorded,)

    def with_absolute_paths(self) -> PricesConfig:
        """Return the settings with files of bars that are found from any folder."""
        recorded = None if self.recorded is None else replace(self.recorded, paths=tuple(map(_absolute, self.recorded.paths)))
        return replace(self, recorded=recorded, process=_with_absolute_paths(self.process))

    def make_process(self) -> PriceProcess:
        """Return the process of simulated prices.

        Raises:
            SettingsError: Its name is unknown, a setting of it is, or its prices could leave what a price can be.
        """
        process = PROCESSES.make(self.process, "process")
        if process.rows_per_episode not in (1, self.symbols_per_episode):
            expected = f"{process.rows_per_episode}, the assets of the process"
            raise SettingsError("symbols_per_episode", "", f"expected {expected}, received {self.symbols_per_episode}")
        try:
            process.check(self.n_bars)
        except ValueError as error:
            raise ValueError(f"process.{error}") from error
        return process


def make_slots(config: PricesConfig) -> tuple[str, ...]:
    """Return what the symbols of an episode are called in observations: their own names where every simulated episode has the same ones."""
    count = config.symbols_per_episode
    if count == 1:
        return ("price",)
    has_all = config.recorded is None and count == len(config.symbols)
    return config.symbols if has_all else tuple(f"price_{place}" for place in range(1, count + 1))


def _with_absolute_paths(choice: Any) -> Any:
    """Return a process as settings have it with absolute paths in its tables `recorded`, however deep they are."""
    if isinstance(choice, list | tuple):
        return type(choice)(map(_with_absolute_paths, choice))
    if not isinstance(choice, dict):
        return choice
    table = {name: _with_absolute_paths(value) for name, value in choice.items()}
    recorded = table.get("recorded")
    if isinstance(recorded, dict) and "paths" in recorded:
        table["recorded"] = recorded | {"paths": list(map(_absolute, recorded["paths"]))}
    return table


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
