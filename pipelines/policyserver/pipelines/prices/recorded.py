"""Episodes that are windows of recorded bars, their starts drawn by the seed."""

from __future__ import annotations

from collections.abc import Sequence

from policyserver.pipelines.market.bars import FloatArray, History
from policyserver.pipelines.market.catalog import Catalog
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import EpisodeBars
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.prices.change import PriceChange
from policyserver.pipelines.prices.config import PricesConfig, make_slots
from policyserver.pipelines.prices.episode_rng import episode_rng


class RecordedSource:
    """Windows of the bars of a catalog's symbols. See `PriceSource`."""

    is_recorded = True

    def __init__(self, config: PricesConfig, seed: int, change: PriceChange | None = None) -> None:
        """Read every file at once, its rows changed by `change`.

        Raises:
            FileFaultError: A file is malformed, or its bars are fewer than an episode has.
            OSError: A file can't be read.
        """
        if config.recorded is None:
            raise ValueError("recorded: expected files of bars, received none")
        self._config = config
        self._seed = seed
        catalog = Catalog(config.recorded, None if change is None else change.rows)
        self._histories: dict[str, History] = {}
        self._columns: dict[str, FloatArray] = {}
        for symbol in catalog.symbols:
            recording = catalog.load(symbol)
            bars, columns = recording.bars, recording.bars.columns()
            if len(bars) < config.n_bars:
                problem = f"expected at least warmup_bars + bars_per_episode = {config.n_bars} bars, received {len(bars)}"
                raise FileFaultError(f"{recording.report.path}: {problem}")
            columns.flags.writeable = False  # windows of it are handed out
            self._histories[symbol] = History(bars, config.n_bars)
            self._columns[symbol] = columns

    @property
    def symbols(self) -> tuple[str, ...]:
        """See `PriceSource`."""
        return tuple(self._histories)

    @property
    def slots(self) -> tuple[str, ...]:
        """See `EpisodeSource`."""
        return make_slots(self._config)

    def episodes(self, numbers: Sequence[int]) -> list[Episode]:
        """Cut the episodes' windows."""
        return [self._episode(number) for number in numbers]

    def _episode(self, number: int) -> Episode:
        symbol = self.symbols[number % len(self.symbols)]
        history = self._histories[symbol]
        start = int(episode_rng(self._seed, symbol, number).integers(len(history.bars) - history.window_bars + 1))
        stop = start + history.window_bars
        window = EpisodeBars(
            history.bars.time_ns[start:stop], self._columns[symbol][start:stop], self._config.warmup_bars, {"first_row": float(start)}
        )
        return Episode((symbol,), number, window, {symbol: history}, start)
