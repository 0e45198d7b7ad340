"""The InfluxDB sink against a real InfluxDB: what `write` accepted is stored, whatever dies, and only bad lines are put aside."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS

from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import STEP
from tests.services import InfluxServer, wait_until

pytestmark = pytest.mark.process

TAGS = {"run": "r1", "policy": "p", "process": "ou", "worker": "w1"}


def config(server: InfluxServer, tmp_path: Path, **changes: Any) -> InfluxConfig:
    defaults: dict[str, Any] = {
        "gather_s": 0.05,
        "retry_min_s": 0.05,
        "retry_max_s": 0.2,
        "adopt_interval_s": 0.2,
        "request_timeout_s": 5.0,
    }
    return InfluxConfig(url=server.url, bucket=server.bucket, spool_folder=tmp_path / "spool", **(defaults | changes))


def steps(rewards: np.ndarray) -> Points:
    count = len(rewards)
    columns: dict[str, Any] = {
        "episode": [f"episode {i}" for i in range(count)],
        "bar": np.arange(count),
        "price": [None if i % 7 == 0 else 100.0 + i for i in range(count)],
        "action": np.ones(count, np.int8),
        "fallback": np.zeros(count, bool),
        "reward": rewards,
    }
    return Points("step", TAGS, columns, tag_columns={"symbol": [("AAA", "B B,=")[i % 2] for i in range(count)]})


def stored(server: InfluxServer) -> tuple[int, float]:
    rows = server.query("SELECT COUNT(reward), SUM(reward) FROM step")
    return (rows[0]["count"], rows[0]["sum"]) if rows else (0, 0.0)


def test_20000_points_arrive_with_the_same_count_and_sum(influx: InfluxServer, tmp_path: Path) -> None:
    influx.start()
    sink = InfluxSink(config(influx, tmp_path))
    rewards = np.random.default_rng(0).normal(size=(4, 50, 100))

    def write(worker: int) -> None:
        for batch in rewards[worker]:
            sink.write(steps(batch))

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sink.flush(60.0)
    count, total = stored(influx)
    assert count == 20_000
    assert math.isclose(total, math.fsum(rewards.ravel()), abs_tol=1e-9)
    statistics = sink.statistics()
    assert (statistics.accepted, statistics.stored, statistics.backlog, statistics.dead_lettered) == (20_000, 20_000, 0, 0)
    assert {row["symbol"] for row in influx.query("SELECT COUNT(reward) FROM step GROUP BY symbol")} == {"AAA", "B B,="}
    kinds = {row["fieldKey"]: row["fieldType"] for row in influx.query("SHOW FIELD KEYS FROM step")}
    assert kinds == {name: STEP.types[name].value for name in kinds}
    sink.close(60.0)
    sink.close(60.0)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_server_that_is_down_at_the_start_and_killed_twice_loses_nothing(influx: InfluxServer, tmp_path: Path) -> None:
    sink = InfluxSink(config(influx, tmp_path))
    rewards = np.random.default_rng(1).normal(size=(3, 20, 100))
    for outage in range(3):
        for batch in rewards[outage][:10]:
            sink.write(steps(batch))
        influx.start()
        for batch in rewards[outage][10:]:
            sink.write(steps(batch))
        if outage == 1:
            assert sink.flush(60.0)
        influx.kill()
    assert sink.statistics().last_error
    influx.start()
    assert sink.flush(60.0)
    count, total = stored(influx)
    assert count == rewards.size
    assert math.isclose(total, math.fsum(rewards.ravel()), abs_tol=1e-9)
    sink.close(60.0)


def test_of_each_thousand_lines_exactly_the_bad_one_is_put_aside_and_a_replay_changes_nothing(influx: InfluxServer, tmp_path: Path) -> None:
    influx.start()
    spool = tmp_path / "spool" / "dead-process"
    spool.mkdir(parents=True)
    lines = [f"step,run=r1 reward={i}.0 {1_700_000_000_000_000_000 + i}" for i in range(5000)]
    bad = [f"step,run=r1 reward={i} is no number {1_700_000_000_000_000_000 + i}" for i in range(500, 5000, 1000)]
    for place, line in zip(range(500, 5000, 1000), bad, strict=True):
        lines[place] = line
    text = "".join(f"{line}\n" for line in lines) + "step,run=r1 reward=1"
    for _ in range(2):
        spool.mkdir(exist_ok=True)
        (spool / "00000001.lp").write_text(text)
        sink = InfluxSink(config(influx, tmp_path))
        wait_until(lambda: not spool.exists(), "the orphan to be delivered")
        assert stored(influx) == (4995, math.fsum(range(5000)) - math.fsum(range(500, 5000, 1000)))
        statistics = sink.statistics()
        assert (statistics.accepted, statistics.stored, statistics.dead_lettered, statistics.backlog) == (5000, 4995, 5, 0)
        sink.close(60.0)
        dead = (tmp_path / "spool" / "dead.lp").read_text().splitlines()
        assert [line for line in dead if not line.startswith("#")] == bad
        assert "400" in dead[0]
        (tmp_path / "spool" / "dead.lp").unlink()


def test_a_dead_letter_file_that_is_full_takes_no_more_and_the_points_are_counted(
    influx: InfluxServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    influx.start()
    spool = tmp_path / "spool" / "dead-process"
    spool.mkdir(parents=True)
    (spool / "00000001.lp").write_text("".join(f"step,run=r1 reward={number} is no number {number}\n" for number in range(50)))
    sink = InfluxSink(config(influx, tmp_path, max_dead_letter_bytes=500))
    wait_until(lambda: not spool.exists(), "the orphan to be gone through")
    sink.close(60.0)
    assert sink.statistics().dead_lettered == 50
    assert 500 <= (tmp_path / "spool" / "dead.lp").stat().st_size < 1000
    assert caplog.text.count("dead.lp is full") == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_process_had_accepted_is_delivered_by_another(influx: InfluxServer, tmp_path: Path, end: signal.Signals) -> None:
    program = """
import sys
from pathlib import Path
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.points import Points
sink = InfluxSink(InfluxConfig(url=sys.argv[1], bucket="rl", spool_folder=Path(sys.argv[2]), segment_bytes=20_000))
number = 0
while True:
    sink.write(Points("step", {"run": "r1", "worker": "dead"}, {"reward": [float(number + i) for i in range(10)]}))
    number += 10
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""
    writer = subprocess.Popen([sys.executable, "-c", program, influx.url, str(tmp_path / "spool")], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(300)]
    writer.send_signal(end)
    said += [int(line) for line in writer.stdout.read().split(b"\n")[:-1]]
    writer.wait()
    writer.stdout.close()
    influx.start()
    sink = InfluxSink(config(influx, tmp_path))
    wait_until(lambda: not list((tmp_path / "spool").glob(f"*-{writer.pid}-*")), "the spool of the killed process to be adopted", 200.0)
    count, total = stored(influx)
    assert said[-1] <= count <= said[-1] + 10, "what was acknowledged, and at most the one write whose acknowledgement died"
    assert total == count * (count - 1) / 2
    sink.close(60.0)


def test_a_full_spool_drops_and_counts_and_what_it_holds_arrives(influx: InfluxServer, tmp_path: Path) -> None:
    sink = InfluxSink(config(influx, tmp_path, max_spool_bytes=20_000))
    for _ in range(10):
        sink.write(steps(np.ones(50)))
    statistics = sink.statistics()
    assert statistics.accepted + statistics.dropped == 500
    assert 0 < statistics.dropped < 500
    assert not sink.flush(0.2)
    influx.start()
    assert sink.flush(60.0)
    assert stored(influx)[0] == statistics.accepted
    sink.close(60.0)


def test_closing_while_the_server_is_away_keeps_the_points_for_the_next_process(influx: InfluxServer, tmp_path: Path) -> None:
    sink = InfluxSink(config(influx, tmp_path))
    sink.write(steps(np.ones(50)))
    sink.close(0.2)
    assert sink.statistics().backlog == 50
    sink.write(steps(np.ones(1)))
    assert sink.statistics().dropped == 1
    influx.start()
    successor = InfluxSink(config(influx, tmp_path))
    wait_until(lambda: successor.statistics().stored == 50, "the successor to deliver them")
    assert stored(influx) == (50, 50.0)
    successor.close(60.0)


def write_and_exit(sink: InfluxSink) -> NoReturn:
    """End a forked child once its points are delivered; with a status other than 0, and never with the parent's tests, if they aren't."""
    status = 1
    try:
        sink.write(steps(np.full(30, 2.0)))
        sink.close(60.0)
        status = int(sink.statistics().backlog > 0)
    finally:
        os._exit(status)


def test_a_forked_child_writes_into_a_spool_of_its_own(influx: InfluxServer, tmp_path: Path) -> None:
    influx.start()
    sink = InfluxSink(config(influx, tmp_path))
    sink.write(steps(np.ones(20)))
    child = os.fork()
    if child == 0:
        write_and_exit(sink)
    assert os.waitpid(child, 0)[1] == 0
    assert sink.flush(60.0)
    assert stored(influx) == (50, 80.0)
    sink.close(60.0)


@pytest.mark.parametrize(("end", "status"), [("pass", 0), ("raise SystemExit(3)", 3), ("raise RuntimeError('an error of the user')", 1)])
def test_a_process_that_ends_without_close_delivers_at_its_exit(influx: InfluxServer, tmp_path: Path, end: str, status: int) -> None:
    influx.start()
    program = """
import sys
from dataclasses import replace
from pathlib import Path
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.points import Points
config = replace(InfluxConfig.from_environment(Path(sys.argv[1])), exit_timeout_s=60.0)
sink = InfluxSink(config)
sink.write(Points("step", {"run": "r1"}, {"reward": [1.0] * 100}))
exec(sys.argv[2])
"""
    environment = os.environ | {"INFLUXDB_V2_URL": influx.url, "INFLUXDB_V2_BUCKET": influx.bucket, "INFLUXDB_V2_TOKEN": "t"}
    command = [sys.executable, "-c", program, str(tmp_path / "spool"), end]
    assert subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, timeout=110, check=False).returncode == status
    assert stored(influx) == (100, 100.0)


def test_a_batch_that_cannot_be_encoded_is_counted_and_does_not_raise(influx: InfluxServer, tmp_path: Path) -> None:
    sink = InfluxSink(config(influx, tmp_path))
    sink.write(Points("step", TAGS, {"action": ["sell", "buy"]}))
    assert sink.statistics().dead_lettered == 2
    assert "step.action" in sink.statistics().last_error
    sink.close(1.0)


def test_the_environment_configures_it_and_the_token_shows_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert InfluxConfig.from_environment(tmp_path, {}) is None
    with pytest.raises(ValueError, match="INFLUXDB_V2_BUCKET"):
        InfluxConfig.from_environment(tmp_path, {"INFLUXDB_V2_URL": "http://127.0.0.1:9"})
    assert InfluxConfig.from_environment(tmp_path, {"INFLUXDB_V2_TOKEN": "s3cret", "INFLUXDB_V2_BUCKET": "b"}) is None
    assert "INFLUXDB_V2_URL is not set, though INFLUXDB_V2_BUCKET, INFLUXDB_V2_TOKEN is" in caplog.text
    with pytest.raises(ValueError, match=r"url: expected http://host:port or https://host:port, received '127.0.0.1:8086'"):
        InfluxConfig("127.0.0.1:8086", "b", tmp_path)
    environment = {
        "INFLUXDB_V2_URL": "http://127.0.0.1:9",
        "INFLUXDB_V2_ORG": "o",
        "INFLUXDB_V2_TOKEN": "s3cret",
        "INFLUXDB_V2_BUCKET": "b",
        "INFLUXDB_V2_TIMEOUT": "2500",
        "INFLUXDB_V2_VERIFY_SSL": "false",
    }
    read = InfluxConfig.from_environment(tmp_path, environment)
    assert read is not None
    assert (read.org, read.token, read.bucket, read.request_timeout_s, read.verify_tls) == ("o", "s3cret", "b", 2.5, False)
    sink = InfluxSink(read)
    sink.write(steps(np.ones(1)))
    sink.close(0.3)
    assert "127.0.0.1:9" in caplog.text
    assert "s3cret" not in caplog.text + repr(read) + sink.statistics().last_error
    with pytest.raises(ValueError, match="set token") as refused:
        InfluxConfig("http://user:s3cret@127.0.0.1:9", "b", tmp_path)
    assert "s3cret" not in str(refused.value)


def test_a_client_of_ones_own_is_used_and_stays_open(influx: InfluxServer, tmp_path: Path) -> None:
    influx.start()
    client = InfluxDBClient(url=influx.url, token="s3cret", org="o")
    asked: list[str] = []
    request = client.api_client.request

    def listening(method: str, url: str, *rest: Any, **more: Any) -> Any:
        asked.append(url)
        return request(method, url, *rest, **more)

    client.api_client.request = listening
    own = InfluxConfig.for_client(client, influx.bucket, tmp_path / "spool")
    assert (own.url, own.org, own.token) == (influx.url, "o", "")
    sink = InfluxSink(own, client)
    sink.write(steps(np.ones(20)))
    assert sink.flush(60.0)
    child = os.fork()
    if child == 0:
        write_and_exit(sink)
    assert os.waitpid(child, 0)[1] == 0
    sink.close(60.0)
    assert asked == [f"{influx.url}/api/v2/write"]
    assert stored(influx) == (50, 80.0)
    client.write_api(write_options=SYNCHRONOUS).write(influx.bucket, "o", b"step,run=r1 reward=3.0")
    assert stored(influx) == (51, 83.0)
    client.close()


def test_influxdb_clients_own_file_configures_it(tmp_path: Path) -> None:
    file = tmp_path / "influx.ini"
    file.write_text('[influx2]\nurl = "http://127.0.0.1:9"\norg=o\ntoken=s3%cret\nbucket=b\ntimeout=2500\nverify_ssl=False\nssl_ca_cert=\n')
    read = InfluxConfig.from_file(file, tmp_path / "spool")
    assert (read.url, read.org, read.token, read.bucket) == ("http://127.0.0.1:9", "o", "s3%cret", "b")
    assert (read.request_timeout_s, read.verify_tls, read.ca_file, read.spool_folder) == (2.5, False, None, tmp_path / "spool")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[influx2]\nurl=http://127.0.0.1:9\n", "BUCKET: expected the bucket"),
        ("[influx2]\nbucket=b\n", "URL: expected the address"),
        ("[influx2]\nurl=http://127.0.0.1:9\nbucket=b\ntimeout=soon\n", "TIMEOUT: expected milliseconds, received 'soon'"),
        ("[influx]\nurl=http://127.0.0.1:9\n", r"expected a section \[influx2\], received influx"),
        ("token=s3cret\n", "no INI file"),
        ("[influx2]\ntoken s3cret\n", "no INI file"),
        ("[influx2]\ntoken=s3cret\ntoken=s3cret\n", "no INI file"),
    ],
)
def test_a_wrong_file_is_named_without_its_secrets(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "influx.ini"
    file.write_text(text)
    with pytest.raises(ValueError, match=said) as refused:
        InfluxConfig.from_file(file, tmp_path)
    assert str(file) in str(refused.value)
    assert "s3cret" not in str(refused.value)
