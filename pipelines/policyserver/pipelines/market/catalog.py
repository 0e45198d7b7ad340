"""Which symbol is in which files, and its bars out of all of them.

catalog = Catalog(CatalogConfig(paths=("data/*.csv", "data/binance")))
catalog.symbols, catalog.load("BTCUSDT").bars
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from policyserver.common.settings import Config, SettingsError
from policyserver.pipelines.market.adjust import AdjustConfig, adjust
from policyserver.pipelines.market.bars import Bars, FloatArray
from policyserver.pipelines.market.calendars import Calendar, make_calendar
from policyserver.pipelines.market.episode_source import MOST_SYMBOL_LETTERS
from policyserver.pipelines.market.files.changed_rows import RowChange
from policyserver.pipelines.market.files.config import FilesConfig
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.market.files.reader import Recording, read_file, symbol_of, symbols_in
from policyserver.pipelines.market.intervals import interval_text
from policyserver.pipelines.market.resample import ResampleConfig, newest, resample

_SUFFIXES = (".csv", ".txt", ".tsv", ".dat", ".gz", ".zip", ".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class CatalogConfig(Config):
    """Files of bars, of any number of symbols."""

    paths: tuple[str, ...] = ()
    """Files, folders (their files of bars, not those of folders below) and patterns such as "data/*.csv"; at least one."""
    symbol_pattern: str = ""
    """Regular expression of a file's name without its endings, whose group `symbol` is the symbol, such as "(?P<symbol>[A-Z]+)_d"; "" takes
    the whole name, or the part of it that HistData and Binance put the symbol in."""
    files: FilesConfig = field(default_factory=FilesConfig)
    """How they are written, and what is done about their faults."""
    adjust: AdjustConfig = field(default_factory=AdjustConfig)
    """Whether prices are adjusted for splits and dividends."""
    resample: ResampleConfig | None = None
    """Longer bars to make of the files'; none: the files' own."""

    def _check(self) -> None:
        if self.symbol_pattern:
            try:
                groups = re.compile(self.symbol_pattern).groupindex
            except re.error as error:
                raise ValueError(f"symbol_pattern: expected a regular expression: {error}, received {self.symbol_pattern!r}") from error
            if "symbol" not in groups:
                raise ValueError(f"symbol_pattern: expected a group (?P<symbol>...), received {self.symbol_pattern!r}")
        if self.resample is not None and self.resample.unit == "session" and not self.files.calendar:
            raise ValueError('files.calendar: expected one with resample.unit = "session", received none')


class Catalog:
    """The symbols of a set of files. Files are read when their bars are asked for; of most only the first lines before."""

    def __init__(self, config: CatalogConfig, change: RowChange | None = None) -> None:
        """Find out which symbols the files hold; `change` changes their rows before anything is made of them.

        Raises:
            SettingsError: There is no path, or a path has no file.
            FileFaultError: A file is not what its dialect says.
            OSError: A file can't be read.
        """
        self._config = config
        self._change = change
        self._calendar: Calendar | None = make_calendar(config.files.calendar) if config.files.calendar else None
        if not config.paths:
            raise SettingsError("paths", "", "expected files, folders or patterns, received none")
        self._files: dict[str, list[Path]] = {}
        for path in sorted({path for pattern in config.paths for path in _found(pattern)}):
            for named in symbols_in(path, config.files.chosen):
                symbol = named or self._named(path)
                if len(symbol) > MOST_SYMBOL_LETTERS:
                    raise FileFaultError(f"{path}: expected a symbol of at most {MOST_SYMBOL_LETTERS} letters, received {symbol!r}")
                self._files.setdefault(symbol, []).append(path)

    @property
    def symbols(self) -> tuple[str, ...]:
        """All symbols, sorted."""
        return tuple(sorted(self._files))

    def files_of(self, symbol: str) -> tuple[Path, ...]:
        """Return the files that hold a symbol.

        Raises:
            KeyError: There is no such symbol.
        """
        return tuple(self._files[symbol])

    def load(self, symbol: str) -> Recording:
        """Return a symbol's bars out of all of its files, adjusted and resampled. Bars that two files have alike are taken once.

        Raises:
            FileFaultError: A file has a fault that is to be refused, two files differ on a bar, or their bars are not of one length.
            KeyError: There is no such symbol.
        """
        settings, change = self._config.files, self._change_of(symbol)
        parts: list[tuple[Path, Recording]] = []
        for path in self.files_of(symbol):
            recordings = read_file(path, settings.chosen, settings.faults, self._calendar, settings.columns, change)
            found = next(each for each in recordings if each.symbol == symbol or len(recordings) == 1)
            parts.append((path, replace(found, symbol=symbol)))
        parts.sort(key=lambda part: part[1].report.first_ns)
        return self._prepared(parts[0][1] if len(parts) == 1 else _joined(parts))

    def _prepared(self, recording: Recording) -> Recording:
        """Adjust bars, then make longer ones of them."""
        bars, unit = adjust(recording.bars, recording.extras, self._config.adjust), self._config.resample
        extras = {name: _carried(values, name, recording.report.path) for name, values in recording.extras.items()}
        if unit is None:
            return replace(recording, bars=bars, extras=extras)
        longer = resample(bars, unit, self._calendar)
        extras = {name: newest(bars.time_ns, values, longer.time_ns) for name, values in extras.items()}
        first = np.append(0, np.searchsorted(bars.time_ns, longer.time_ns[:-1], side="right"))[: len(longer)]
        return replace(recording, bars=longer, stamp_ns=longer.time_ns, extras=extras, begins_ns=recording.begins_ns[first])

    def _change_of(self, symbol: str) -> RowChange | None:
        """Return what changes the rows of a file of a symbol, by its name where the file doesn't name it."""
        change = self._change
        return change and (lambda named, ends_ns, columns: change(named or symbol, ends_ns, columns))

    def _named(self, path: Path) -> str:
        if not self._config.symbol_pattern:
            return symbol_of(path)
        stem = path.name.partition(".")[0]
        if match := re.fullmatch(self._config.symbol_pattern, stem):
            return match["symbol"]
        raise FileFaultError(f"{path}: expected a name like {self._config.symbol_pattern!r} (symbol_pattern), received {stem!r}")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits: what data are known by in a record.

    Raises:
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _carried(values: FloatArray, name: str, path: str) -> FloatArray:
    """Return a column in which a bar without a number has that of the bar before."""
    is_known = np.isfinite(values)
    if len(values) and not is_known[0]:
        raise FileFaultError(f"{path}, column {name}: expected a number with the first bar, received none")
    carried: FloatArray = values[np.maximum.accumulate(np.where(is_known, np.arange(len(values)), 0))]
    return carried


def _found(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = [file for file in path.iterdir() if file.is_file() and file.suffix.lower() in _SUFFIXES]
    elif path.exists():
        found = [path]
    else:
        found = [file for file in Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))) if file.is_file()]
    if not found:
        raise SettingsError("paths", "", f"expected files of bars, received {pattern!r}, which matches no such file")
    return found


def _joined(parts: list[tuple[Path, Recording]]) -> Recording:
    recordings = [recording for _, recording in parts]
    _require_one_length(parts)
    names = sorted(set.intersection(*(set(recording.extras) for recording in recordings)))
    stamps = np.concatenate([recording.stamp_ns for recording in recordings])
    of_part = np.repeat(np.arange(len(parts)), [len(recording.bars) for recording in recordings])
    columns = [np.concatenate([getattr(recording.bars, name) for recording in recordings]) for name in Bars.__slots__]
    extras = {name: np.concatenate([recording.extras[name] for recording in recordings]) for name in names}
    order = np.argsort(stamps, kind="stable")
    is_again = np.diff(stamps[order], prepend=stamps[order[:1]] - 1) == 0
    for values in columns[1:]:
        if len(differing := np.flatnonzero(is_again & (values[order] != values[np.roll(order, 1)]))):
            row, before = order[differing[0]], order[differing[0] - 1]
            problem = (
                f"expected the bar of {np.datetime64(int(stamps[row]), 'ns')} as in {parts[of_part[before]][0]}, received other values"
            )
            raise FileFaultError(f"{parts[of_part[row]][0]}: {problem}")
    kept = order[~is_again]
    first = recordings[0].report
    report = replace(
        first,
        path=", ".join(str(path) for path, _ in parts),
        n_rows=sum(recording.report.n_rows for recording in recordings),
        n_bars=len(kept),
        last_ns=max(recording.report.last_ns for recording in recordings),
        findings=tuple(finding for recording in recordings for finding in recording.report.findings),
    )
    bars = Bars(*(values[kept] for values in columns))
    begins = np.concatenate([recording.begins_ns for recording in recordings])[kept]
    return Recording(recordings[0].symbol, bars, stamps[kept], {name: values[kept] for name, values in extras.items()}, report, begins)


def _require_one_length(parts: list[tuple[Path, Recording]]) -> None:
    known = [(path, recording) for path, recording in parts if recording.report.interval_ns]
    first_path, first = known[0] if known else parts[0]
    for path, other in known:
        if other.report.interval_ns != first.report.interval_ns:
            expected, received = interval_text(first.report.interval_ns), interval_text(other.report.interval_ns)
            raise FileFaultError(f"{path}: expected bars of {expected} as in {first_path}, received {received}")
