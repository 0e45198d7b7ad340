"""The InfluxDB sink when everything dies at once, and over a long outage."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.points import Points
from tests.services import InfluxServer, wait_until

pytestmark = pytest.mark.alone

BATCH = 100
BAD_OF_EACH = 1000

WRITER = f"""
import sys, time
from pathlib import Path
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.influx.config import InfluxConfig
from tests.monitoring.influx.test_influx_chaos import batch
config = InfluxConfig(sys.argv[1], "rl", Path(sys.argv[2]), gather_s=0.02, retry_min_s=0.05, retry_max_s=0.2, segment_bytes=100_000)
sink = InfluxSink(config)
number = 0
while True:
    sys.stdin.readline()
    sink.write(batch(number, int(sys.argv[3])))
    number += {BATCH}
    sys.stdout.write(f"{{number}}\\n")
    sys.stdout.flush()
    time.sleep(0.01)
"""
"""Writes a batch for each line that it reads, so that a slow machine has no more to deliver than a fast one."""


def batch(first: int, start_ns: int) -> Points:
    """Points numbered on from `first`; of each thousand, one that the database refuses because it has that field as a text."""
    numbers = np.arange(first, first + BATCH)
    bad = [0.5 if number % BAD_OF_EACH == BAD_OF_EACH // 2 else None for number in numbers.tolist()]
    return Points("step", {"run": "r1", "worker": "w"}, {"reward": numbers.astype(float), "slippage": bad}, start_ns + numbers)


def stored(influx: InfluxServer) -> tuple[int, float]:
    rows = influx.query("SELECT COUNT(reward), SUM(reward) FROM step WHERE run = 'r1'")
    return (rows[0]["count"], rows[0]["sum"]) if rows else (0, 0.0)


def dead_lines(spool: Path) -> set[str]:
    """Read the dead letters; a process killed between burying a line and noting it leaves that line twice."""
    path = spool / "dead.lp"
    return {line for line in path.read_text().splitlines() if not line.startswith("#")} if path.exists() else set()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("repetition", range(10))
def test_stored_is_what_was_accepted_less_the_dead_letters_whatever_dies(influx: InfluxServer, tmp_path: Path, repetition: int) -> None:
    start_ns = time.time_ns()
    influx.start()
    text_field = f'step,run=other slippage="a text" {start_ns}'.encode()
    url = f"{influx.url}/api/v2/write?bucket={influx.bucket}&precision=ns"
    urllib.request.urlopen(urllib.request.Request(url, data=text_field, method="POST"), timeout=60.0).close()
    influx.kill()

    spool = tmp_path / "spool"
    command = [sys.executable, "-c", WRITER, influx.url, str(spool), str(start_ns)]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdin is not None
    assert writer.stdout is not None
    said = 0

    def allow(more: int) -> None:
        assert writer.stdin is not None
        writer.stdin.write(b"\n" * (more // BATCH))
        writer.stdin.flush()

    def accept(more: int) -> None:
        nonlocal said
        assert writer.stdout is not None
        until = said + more
        while said < until:
            said = int(writer.stdout.readline())

    allow(3000)
    accept(3000)
    for _ in range(2):
        allow(6000)
        influx.start()
        accept(4000)
        influx.kill()
        accept(2000)
    last = 2000 + 300 * repetition
    allow(last + 2000)
    influx.start()
    accept(last)
    writer.kill()
    said = max([said, *(int(line) for line in writer.stdout.read().split(b"\n")[:-1])])
    writer.wait()
    writer.stdout.close()
    writer.stdin.close()

    config = InfluxConfig(influx.url, influx.bucket, spool, gather_s=0.02, retry_min_s=0.05, retry_max_s=0.2, adopt_interval_s=0.1)
    heir = InfluxSink(config)
    wait_until(lambda: not list(spool.glob(f"*-{writer.pid}-*")), "the killed writer's spool to be delivered")
    heir.close(60.0)

    accepted = {said, said + BATCH}  # the writer may have died between its newest write and its saying so
    dead = dead_lines(spool)
    count, total = stored(influx)
    assert count + len(dead) in accepted
    numbers = np.arange(count + len(dead))
    is_bad = numbers % BAD_OF_EACH == BAD_OF_EACH // 2
    assert {int(line.rpartition(" ")[2]) - start_ns for line in dead} == set(numbers[is_bad].tolist())
    assert total == numbers[~is_bad].sum()

    replay = InfluxSink(config)
    for first in range(0, len(numbers), BATCH):
        replay.write(batch(first, start_ns))
    assert replay.flush(60.0)
    replay.close(60.0)
    assert stored(influx) == (count, total)
    assert len(dead_lines(spool)) == len(dead)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_flat_over_an_outage_of_five_million_points(tmp_path: Path) -> None:
    config = InfluxConfig("http://127.0.0.1:9", "rl", tmp_path / "spool", max_spool_bytes=1 << 31)
    sink = InfluxSink(config)
    process = psutil.Process()
    columns = {"reward": np.linspace(0.0, 1.0, 1000)}
    resident: list[int] = []
    for batch_number in range(5000):
        sink.write(Points("step", {"run": "r", "worker": "w"}, columns))
        if batch_number % 500 == 499:
            resident.append(process.memory_info().rss)
    statistics = sink.statistics()
    assert (statistics.accepted, statistics.dropped, statistics.backlog) == (5_000_000, 0, 5_000_000)
    spooled = sum(path.stat().st_size for path in (tmp_path / "spool").rglob("*.lp"))
    sink.close(0.1)
    grown = max(resident) - resident[0]
    sys.stdout.write(f"an outage of 5,000,000 points: {spooled / 1e6:,.0f} MB on disk, memory {grown / 1e6:+.1f} MB\n")
    assert spooled > 300_000_000
    assert grown < 10_000_000, [value >> 20 for value in resident]
