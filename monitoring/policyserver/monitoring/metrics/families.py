"""Families of OpenMetrics out of what is counted anyway. Their names, units and texts come from where a figure is declared."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from policyserver.common.figures import Figure, Kind, figures
from policyserver.monitoring.sink import MultiSink, Sink

_MAY_FALL = "reward"
"""Unit of sums that are no counters to Prometheus, for they may fall."""

_SINK = {
    "accepted": (CounterMetricFamily, "Points that the sink took."),
    "stored": (CounterMetricFamily, "Points that reached the database."),
    "backlog": (GaugeMetricFamily, "Points that are accepted and not stored yet."),
    "dropped": (CounterMetricFamily, "Points refused, because too many were waiting."),
    "dead_lettered": (CounterMetricFamily, "Points put aside, because the database can never take them."),
}
_PROCESS = {
    "cpu_seconds": (CounterMetricFamily, "Processor time, user and system."),
    "resident_memory_bytes": (GaugeMetricFamily, "Memory that is resident."),
    "open_fds": (GaugeMetricFamily, "Open file descriptors."),
    "threads": (GaugeMetricFamily, "Threads."),
}


def of_figures(prefix: str, cls: type, label: str, each: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield a family for each figure that a dataclass declares, but for texts.

    Args:
        prefix: What the names begin with.
        cls: The dataclass.
        label: Name of the label that tells instances apart; "" for a single one.
        each: The figures that have a value, by that label's value.
    """
    by_labels = {(value,) if label else (): values for value, values in each.items()}
    yield from of_labelled_figures(prefix, cls, [label] if label else [], by_labels)


def of_labelled_figures(prefix: str, cls: type, labels: Sequence[str], each: Mapping[Any, Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield the same for instances that several labels tell apart; `each` is by tuples of these labels' values."""
    for name, figure in figures(cls).items():
        if figure.kind is not Kind.TEXT:
            family = _family(figure)(_spelled(prefix, figure), _help(figure), labels=labels)
            for values_of_labels, values in each.items():
                if name in values:
                    family.add_metric(values_of_labels, float(values[name]))
            yield family


def _family(figure: Figure) -> Any:
    return CounterMetricFamily if figure.kind is Kind.COUNTER and figure.unit != _MAY_FALL else GaugeMetricFamily


def _spelled(prefix: str, figure: Figure) -> str:
    """Return the name of a figure's family: with its unit in full, and with what an amount is of."""
    name = figure.name.removesuffix("_total")
    name = f"{name.removesuffix('_s')}_seconds" if name.endswith("_s") else name
    name = f"iteration_{name}" if figure.kind is Kind.AMOUNT else name
    own, _, rest = name.partition("_")
    return f"{prefix}_{rest}" if prefix.endswith(f"_{own}") else f"{prefix}_{name}"


def _help(figure: Figure) -> str:
    unit = f" Unit: {figure.unit}." if figure.unit and figure.unit != "s" else ""
    return f"{figure.meaning}{unit}"


def gauge(name: str, text: str, value: float | None) -> Metric:
    """Make a family of one gauge; without a sample where the value is unknown."""
    return GaugeMetricFamily(name, text, value=value)


def labelled(kind: type, name: str, text: str, labels: Sequence[str], samples: Mapping[Any, float]) -> Metric:
    """Make a family of counters or gauges from samples by the values of their labels, which are tuples of texts."""
    family = kind(name, text, labels=labels)
    for values, number in samples.items():
        family.add_metric(list(values), number)
    made: Metric = family
    return made


def doubling_histogram(
    name: str, text: str, labels: Sequence[str], samples: Mapping[Any, tuple[Sequence[int], float]], *, unit: float
) -> Metric:
    """Make a family of histograms whose bounds double.

    Args:
        name: Its name.
        text: Its help.
        labels: Names of the labels.
        samples: By the values of the labels, how often each class was seen, and the sum of all values. Class k is of values of
            at most 2**k units, and the last one of all others.
        unit: What a unit is in the family's own.
    """
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, (counts, total) in samples.items():
        seen, buckets = 0, []
        for place, count in enumerate(counts):
            seen += count
            bound = math.inf if place == len(counts) - 1 else float(f"{2**place * unit:.9g}")
            buckets.append((_spelled_bound(bound), float(seen)))
        family.add_metric(list(values), buckets, sum_value=total)
    made: Metric = family
    return made


def _spelled_bound(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def of_sinks(prefix: str, sink: Sink) -> Iterator[Metric]:
    """Yield the counters of each sink that stores something."""
    sinks = {type(each).__name__: each.statistics() for each in (sink.sinks if isinstance(sink, MultiSink) else (sink,))}
    for name, (kind, text) in _SINK.items():
        samples = {(sink_name,): float(getattr(statistics, name)) for sink_name, statistics in sinks.items()}
        yield labelled(kind, f"{prefix}_sink_points_{name}", text, ["sink"], samples)


def of_processes(prefix: str, each: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
    """Yield what processes take of the machine, by their names."""
    for name, (kind, text) in _PROCESS.items():
        samples = {(process,): figures[name] for process, figures in each.items() if name in figures}
        yield labelled(kind, f"{prefix}_process_{name}", text, ["process"], samples)


def of_files(prefix: str, folder: Path, store: Path | None, spool: Path | None) -> Iterator[Metric]:
    """Yield the sizes of the store and of the spool, and the space on their disk."""
    yield gauge(f"{prefix}_disk_free_bytes", "Space left for this user on the disk of the run folder.", _free_bytes(folder))
    stores = [store, *(store.with_name(f"{store.name}{end}") for end in ("-wal", "-shm"))] if store is not None else []
    yield gauge(f"{prefix}_store_bytes", "Size of the embedded store, its log included.", _size(stores))
    spooled = spool.rglob("*") if spool is not None and spool.is_dir() else ()
    yield gauge(f"{prefix}_spool_bytes", "Size of what waits on disk for InfluxDB, dead letters included.", _size(spooled))


def _free_bytes(folder: Path) -> float | None:
    try:
        return float(shutil.disk_usage(folder).free)
    except OSError:
        return None


def _size(files: Iterable[Path]) -> float:
    total = 0.0
    for file in files:
        try:
            total += file.stat().st_size
        except OSError:  # it is gone, or was never there
            continue
    return total
