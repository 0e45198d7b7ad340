"""Episodes that are windows of recorded bars."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.annualisation import Annualisation, by_calendar, counted
from policyserver.pipelines.market.bars import History
from policyserver.pipelines.market.calendars import make_calendar
from policyserver.pipelines.market.catalog import Catalog, CatalogConfig
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import EpisodeBars
from policyserver.pipelines.market.frames import asked
from policyserver.pipelines.market.split import Cut, Reach, cut, split
from policyserver.pipelines.market.time_line import RecordedSymbol, TimeLine
from policyserver.pipelines.market.windows import WindowLength, WindowTable, counts_text, find_windows, has_usual_interval, usual_interval
from policyserver.pipelines.prices.change import PriceChange
from policyserver.pipelines.prices.config import PricesConfig, make_slots
from policyserver.pipelines.prices.window_order import WindowOrder


class RecordedSource:
    """Windows of the bars of a catalog's symbols. See `PriceSource`."""

    is_recorded = True

    def __init__(self, config: PricesConfig, seed: int, reach: Reach, change: PriceChange | None = None) -> None:
        """Read every file at once, its rows changed by `change`, cut time, and find the windows of the part that is played.

        Raises:
            SettingsError: There are no such files, or a symbol or a fold has no window.
            FileFaultError: A file is malformed.
            ValueError: Its bars are fewer than an episode has.
            OSError: A file can't be read.
        """
        if config.recorded is None:
            raise ValueError("recorded: expected files of bars, received none")
        self._config = config
        calendar = config.recorded.files.calendar
        self._calendar = make_calendar(calendar) if calendar else None
        self.columns = config.recorded.files.columns
        """See `EpisodeSource`."""
        self._warmup_bars = warmup = config.warmup_bars or reach.window_bars
        skips = config.windows.length or config.windows.without_windows == "skip"
        recorded = _read(config.recorded, change, None if skips else (warmup, config.bars_per_episode))
        self._bars = {symbol: each.bars for symbol, each in recorded.items()}
        self._begins = {symbol: each.begins_ns for symbol, each in recorded.items()}
        self._lines = _lines(recorded, config.symbols_per_episode)
        purge = Reach(max(warmup, reach.window_bars), reach.label_bars).purge_bars
        if config.split is not None:
            purge += config.split.embargo_bars
        self._spans, cuts = self._cut()
        tables = self._windows(cuts, purge)
        self._histories = {
            (symbol, fold): self._history(symbol, times, purge) for symbol in recorded for fold, times in enumerate(cuts or [None])
        }
        self._tables = tables
        names = ["+".join(line.symbols) for line in self._lines]
        self._order = WindowOrder(tables, names, config.windows, seed, is_test=config.plays_test)

    @property
    def symbols(self) -> tuple[str, ...]:
        """See `PriceSource`."""
        return tuple(self._bars)

    @property
    def slots(self) -> tuple[str, ...]:
        """See `EpisodeSource`. The symbols' names where every episode has the same ones at once."""
        symbols = self._lines[0].symbols
        return symbols if len(self._lines) == 1 and len(symbols) > 1 else make_slots(self._config)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `PriceSource`."""
        return tuple(
            f"{f'{span}: ' if span else ''}{'+'.join(line.symbols)}: {table.text}"
            for span, tables in zip(self._spans, self._tables, strict=True)
            for line, table in zip(self._lines, tables, strict=True)
        )

    @property
    def n_windows(self) -> int:
        """See `PriceSource`."""
        return sum(len(table) for tables in self._tables for table in tables)

    @property
    def annualisations(self) -> Mapping[str, Annualisation]:
        """See `PriceSource`. By the calendar where there is one, else as many as there are in the time of the files."""
        return {
            "+".join(line.symbols): counted(line.time_ns) if self._calendar is None else by_calendar(self._calendar, line.interval_ns)
            for line in self._lines
        }

    @cached_property
    def bar_intervals_ns(self) -> Mapping[str, int]:
        """See `PriceSource`."""
        return {symbol: usual_interval(bars.time_ns) for symbol, bars in self._bars.items() if has_usual_interval(bars.time_ns)}

    @property
    def first_actions_ns(self) -> Mapping[str, int]:
        """By symbol, the end of the earliest bar at whose close an episode may act."""
        firsts: dict[str, int] = {}
        for tables in self._tables:
            for line, table in zip(self._lines, tables, strict=True):
                if len(table):
                    first = int(line.time_ns[int(table.first.min()) - 1])
                    firsts.update({symbol: min(first, firsts.get(symbol, first)) for symbol in line.symbols})
        return firsts

    def episodes(self, numbers: Sequence[int]) -> list[Episode]:
        """Cut the episodes' windows."""
        return [self._episode(number) for number in numbers]

    def _episode(self, number: int) -> Episode:
        config, warmup = self._config, self._warmup_bars
        fold, place, window = self._order.place(number)
        line, table = self._lines[place], self._tables[fold][place]
        first, stop = int(table.first[window]) - warmup, int(table.stop[window])
        times = line.time_ns[first:stop]
        present = None if line.present is None else line.present[first:stop]
        asks = asked(times, present, warmup, config.decide, config.deadline_ns, config.skip_frame)
        covers = None if line.covers is None else line.covers[first:stop]
        stale_bars = None if line.stale_bars is None else line.stale_bars[first + warmup - 1]
        bars = EpisodeBars(times, line.columns[first:stop], warmup, {"first_row": float(first)}, asks, present, covers, stale_bars)
        histories = {symbol: self._histories[symbol, fold] for symbol in line.symbols}
        own_rows = None if line.own_rows is None else line.own_rows[first:stop]
        return Episode(line.symbols, number, bars, histories, first, own_rows, self._spans[fold])

    # Before anything starts ----------------------------------------------------------------------------------------------------------

    def _cut(self) -> tuple[list[str], list[Cut]]:
        """Return what the parts that are played are called, and their folds' times; none where there is no split."""
        config = self._config.split
        if config is None:
            return [""], []
        first, last = (function(int(line.time_ns[end]) for line in self._lines) for function, end in ((min, 0), (max, -1)))
        try:
            cuts = cut(first, last, config)
        except ValueError as error:
            field, _, problem = str(error).partition(": ")
            raise SettingsError(f"prices.split.{field}", "", problem) from error
        if len(cuts) == 1:
            return [config.side], cuts
        if self._config.windows.order != "walk_forward" and config.fold is None:
            expected = f'0 to {len(cuts) - 1}, or windows.order = "walk_forward" for one after another'
            raise SettingsError("prices.split.fold", "", f"expected {expected}, received none")
        chosen = range(len(cuts)) if config.fold is None else [config.fold]
        return [f"{config.side} {number}" for number in chosen], [cuts[number] for number in chosen]

    def _windows(self, cuts: list[Cut], purge_bars: int) -> list[list[WindowTable]]:
        """Return of each fold the windows of each line.

        Raises:
            SettingsError: A fold has none, or a line has none in any fold and is not to be skipped.
        """
        config = self._config
        tables: list[list[WindowTable]] = [[] for _ in self._spans]
        for line in self._lines:
            length = WindowLength(self._warmup_bars, config.bars_per_episode, config.length_ns, line.interval_ns)
            whole = (0, len(line.time_ns))
            side = config.split.side if config.split is not None else "train"
            spans = [fold.of(side) for fold in split(line.time_ns, cuts, purge_bars)] or [whole]
            found = [find_windows(line.time_ns, span, length, config.windows, self._calendar, is_test=config.plays_test) for span in spans]
            if not any(map(len, found)) and config.windows.without_windows == "refuse":
                raise SettingsError("prices.windows", "", self._nothing(line, found, spans, length))
            for fold, table in enumerate(found):
                tables[fold].append(table)
        for span, of_lines in zip(self._spans, tables, strict=True):
            if not any(map(len, of_lines)):
                left_out = sum((Counter(table.left_out) for table in of_lines), Counter[str]())
                problem = f"expected at least one window{f' in {span}' if span else ''}, received {counts_text(0, left_out)}"
                raise SettingsError("prices.windows", "", problem)
        return tables

    def _nothing(self, line: TimeLine, found: list[WindowTable], spans: list[tuple[int, int]], length: WindowLength) -> str:
        """Say why a line has no window."""
        name, bars = "+".join(line.symbols), sum(stop - start for start, stop in spans)
        left_out = sum((Counter(table.left_out) for table in found), Counter[str]())
        played = self._config.windows.length or f"{length.n_bars} bars"
        where = f" of {self._config.split.play}" if self._config.split is not None else ""
        return (
            f"{name}: expected at least one window of {length.warmup_bars} bars of warm-up and {played}, received {bars} bars{where} with "
            f'{counts_text(0, left_out)} (windows.without_windows = "skip" leaves such symbols out)'
        )

    def _history(self, symbol: str, times: Cut | None, purge_bars: int) -> History:
        bars, config = self._bars[symbol], self._config
        interval_ns = min(line.interval_ns for line in self._lines if symbol in line.symbols)
        most = WindowLength(self._warmup_bars, config.bars_per_episode, config.length_ns, interval_ns).most_bars
        if times is None or config.split is None:
            return History(bars, most, begins_ns=self._begins[symbol])
        (fold,) = split(bars.time_ns, [times], purge_bars)
        return History(bars, most, fold.of(config.split.side), config.plays_test, self._begins[symbol])


def _read(config: CatalogConfig, change: PriceChange | None, least: tuple[int, int] | None) -> dict[str, RecordedSymbol]:
    """Read all symbols; `least` are the bars of warm-up and those played that each has at least, none: as many as there are."""
    catalog, recorded = Catalog(config, None if change is None else change.rows), {}
    for symbol in catalog.symbols:
        recording = catalog.load(symbol)
        if least is not None and len(recording.bars) < sum(least):
            wanted = f"warmup_bars + bars_per_episode = {least[0]} + {least[1]} bars"
            raise ValueError(f"{recording.report.path}: expected at least {wanted}, received {len(recording.bars)}: set fewer of either")
        recorded[symbol] = RecordedSymbol.of(recording.bars, recording.extras, config.files.columns, recording.begins_ns)
    return recorded


def _lines(recorded: dict[str, RecordedSymbol], symbols_per_episode: int) -> list[TimeLine]:
    """Return the lines of time of a round: each symbol, or as many at a time as an episode trades, round and round until it repeats."""
    symbols = list(recorded)
    if symbols_per_episode > len(symbols):
        problem = f"expected at most the {len(symbols)} symbols of the files, received {symbols_per_episode}"
        raise SettingsError("prices.symbols_per_episode", "", problem)
    n_groups = len(symbols) // math.gcd(len(symbols), symbols_per_episode)
    groups = [
        tuple(symbols[(group * symbols_per_episode + place) % len(symbols)] for place in range(symbols_per_episode))
        for group in range(n_groups)
    ]
    return [TimeLine.of(group, recorded) for group in groups]
