"""How fast the InfluxDB sink is. Each figure is the best of several runs, for what else the machine does only makes it worse.

`pytest -rP` shows the figures.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.points import Points
from tests.services import InfluxServer

TAGS = {"run": "20261121T032235Z-seed0", "policy": "PPO", "process": "ou", "worker": "4711", "symbol": "AAA"}
FIELDS: dict[str, Any] = {
    "episode": "20261121-000017-3",
    "bar": 17,
    "price": 101.25,
    "prediction": 0.00123,
    "prediction_std": 0.0123,
    "action": 2,
    "position": 10.0,
    "equity": 10_012.34,
    "reward": 0.567,
    "fee": 0.0123,
    "slippage": 0.00123,
    "fallback": False,
    "weights_seq_no": 12,
}


def write_for(sink: InfluxSink, points: int, at_once: int) -> float:
    """Write so many points; points accepted a second."""
    columns = {name: [value] * at_once for name, value in FIELDS.items()}
    begun = time.perf_counter()
    for _ in range(points // at_once):
        sink.write(Points("step", TAGS, columns))
    return points / (time.perf_counter() - begun)


@pytest.mark.figures
def test_a_write_takes_at_most_50_microseconds_while_the_database_is_dead(tmp_path: Path) -> None:
    sink = InfluxSink(InfluxConfig("http://127.0.0.1:9", "rl", tmp_path / "spool"))
    p99_us = []
    for _ in range(20):
        took_ns = np.empty(4000)
        for number in range(len(took_ns)):
            points = Points.one("step", TAGS, FIELDS)
            begun = time.perf_counter_ns()
            sink.write(points)
            took_ns[number] = time.perf_counter_ns() - begun
        p99_us.append(float(np.percentile(took_ns, 99.0)) / 1000.0)
    sink.close(0.1)
    sys.stdout.write(f"p99 of write(), database dead: {min(p99_us):.1f} us (median run {np.median(p99_us):.1f} us)\n")
    assert sink.statistics().accepted == 80_000
    assert min(p99_us) <= 50.0, p99_us


@pytest.mark.figures
def test_50000_points_a_second_are_accepted_and_40000_delivered(influx: InfluxServer, tmp_path: Path) -> None:
    influx.start()
    accepted, delivered = [], []
    for run in range(8):
        sink = InfluxSink(InfluxConfig(influx.url, influx.bucket, tmp_path / f"spool-{run}"))
        begun = time.perf_counter()
        accepted.append(write_for(sink, 128_000, at_once=64))
        assert sink.flush(60.0)
        delivered.append(128_000 / (time.perf_counter() - begun))
        assert sink.statistics().dropped == 0
        sink.close(10.0)
    sys.stdout.write(f"accepted {max(accepted):,.0f} points/s, delivered {max(delivered):,.0f} points/s\n")
    assert influx.query("SELECT COUNT(reward) FROM step")[0]["count"] == 8 * 128_000
    assert max(accepted) >= 50_000, accepted
    assert max(delivered) >= 40_000, delivered
