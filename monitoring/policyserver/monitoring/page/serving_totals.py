"""What all serving processes of a run did together, and when each of them was there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policyserver.monitoring.page.selection import NewRows, PageSelection
from policyserver.monitoring.schema import SERVER
from policyserver.monitoring.store.reader import StoreReader

_COUNTERS = ("steps_completed", "steps_dropped", "episodes_finished", "rows_refused")
_GAUGES = ("episodes_open", "steps_waiting", "clients_connected")
_OF_THE_LAST = ("weights_seq_no", "staleness_mean")
"""Figures that are those of the process with the newest point."""

ALIVE_NS = 5 * 10**9
"""Greatest time between the last point of a serving process and the run's newest one while the process counts as present."""

_RATE_NS = 10 * 10**9
"""Time over which rates are taken."""

_LEAST_RATE_NS = 10**9
"""Least time over which rates are taken: daemon and pipeline may record the same counters at about the same time."""


@dataclass
class _Process:
    """What is known of a serving process."""

    first_ns: int
    last_ns: int
    counters: list[int]
    newest: dict[str, Any]


class ServingTotals:
    """The serving processes of a selection, each row read once."""

    def __init__(self, selection: PageSelection, run: str) -> None:
        """Begin without reading."""
        self._new = NewRows(selection, run, SERVER)
        new = f"FROM server WHERE {self._new.condition} GROUP BY boot_id"
        counters = ", ".join(f"COALESCE(MAX({name}), 0)" for name in _COUNTERS)
        self._counters_statement = f"SELECT boot_id, MIN(time_ns), MAX(time_ns), {counters} {new}"
        self._newest_statement = (
            f"SELECT boot_id, MAX(id), {', '.join((*_GAUGES, *_OF_THE_LAST))} {new}"  # the other columns come from the row with that id
        )
        self._rates_statement = (
            "SELECT boot_id, MAX(time_ns) - MIN(time_ns), MAX(actions) - MIN(actions), MAX(batches) - MIN(batches) "
            f"FROM server WHERE run = :run AND time_ns >= :since{self._new.tags} GROUP BY boot_id"
        )
        self._processes: dict[str | None, _Process] = {}

    def read(self, reader: StoreReader, upto: int) -> None:
        """Add the new rows up to an id."""
        parameters = self._new.upto(upto)
        for boot_id, first_ns, last_ns, *counters in reader.select(self._counters_statement, parameters):
            process = self._processes.setdefault(boot_id, _Process(first_ns, last_ns, counters, {}))
            process.first_ns, process.last_ns = min(process.first_ns, first_ns), max(process.last_ns, last_ns)
            process.counters = [max(pair) for pair in zip(process.counters, counters, strict=True)]
        for boot_id, _, *newest in reader.select(self._newest_statement, parameters):
            self._processes[boot_id].newest = dict(zip((*_GAUGES, *_OF_THE_LAST), newest, strict=True))

    def row(self, reader: StoreReader) -> dict[str, Any] | None:
        """Return counters of all processes, gauges and rates of the newest ten seconds of those present; None without a process."""
        if not self._processes:
            return None
        newest_ns = max(process.last_ns for process in self._processes.values())
        alive = {boot_id: process for boot_id, process in self._processes.items() if process.last_ns >= newest_ns - ALIVE_NS}
        last = max(alive.values(), key=lambda process: process.last_ns)
        columns = zip(*(process.counters for process in self._processes.values()), strict=True)
        totals = dict(zip(_COUNTERS, map(sum, columns), strict=True))
        gauges = {name: sum(process.newest[name] or 0 for process in alive.values()) for name in _GAUGES}
        rates = reader.select(self._rates_statement, self._new.parameters | {"since": newest_ns - _RATE_NS})
        known = [row[1:] for row in rates if row[0] in alive and row[1] >= _LEAST_RATE_NS and None not in row]
        per_s = sum(actions * 1e9 / passed_ns for passed_ns, actions, _ in known) if known else None
        batches = sum(row[2] for row in known)
        return {
            **totals,
            **gauges,
            **{name: last.newest[name] for name in _OF_THE_LAST},
            "actions_per_s": per_s,
            "batch_size": sum(row[1] for row in known) / batches if batches else None,
        }

    def restarts_ns(self) -> list[int]:
        """Return the times at which a process began after another had ended, in order."""
        ends = [process.last_ns for process in self._processes.values()]
        earliest = min(ends, default=0)
        return sorted(process.first_ns for process in self._processes.values() if earliest < process.first_ns)
