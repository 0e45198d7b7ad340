"""Tools that are not ours look at a server: Debian's Prometheus scrapes it, Debian's VictoriaMetrics scrapes it and takes its points."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.client import ClientConfig, PolicyClient
from tests.conftest import CARTPOLE
from tests.live_server import serving
from tests.ports import free_ports
from tests.services import MissingService, program, wait_until

pytestmark = pytest.mark.slow
ALERTS = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
SCRAPE = """
scrape_configs:
  - job_name: policy-server
    scrape_interval: 1s
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def ask(address: str, path: str) -> Any:
    """Return a JSON answer; None while there is none."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10.0) as answer:
            return json.loads(answer.read())
    except (OSError, urllib.error.URLError):
        return None


def asked(address: str, expression: str) -> Callable[[], dict[str, float]]:
    """Return what asks for the samples of a PromQL expression, by the label that tells them apart."""

    def query() -> dict[str, float]:
        found = ask(address, f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        samples = found["data"]["result"] if found else []
        return {json.dumps(sample["metric"], sort_keys=True): float(sample["value"][1]) for sample in samples}

    return query


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(120.0)


@pytest.mark.timeout(900)
def test_prometheus_and_victoria_metrics_see_a_server_learn(
    tmp_path: Path, missing_service: MissingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics_port, prometheus_port, victoria_port = free_ports(3)
    prometheus, victoria = f"127.0.0.1:{prometheus_port}", f"127.0.0.1:{victoria_port}"
    scrape, with_rules = tmp_path / "scrape.yml", tmp_path / "prometheus.yml"
    scrape.write_text(SCRAPE.format(port=metrics_port))
    with_rules.write_text(f"rule_files: [{ALERTS}]\n{SCRAPE.format(port=metrics_port)}")
    monkeypatch.setenv("INFLUXDB_V2_URL", f"http://{victoria}")
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", "rl")
    config = f'{CARTPOLE}\n[recording]\nmetrics = "127.0.0.1:{metrics_port}"\n'
    scraper = [
        program("prometheus", missing_service), f"--config.file={with_rules}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address={prometheus}",
    ]  # fmt: skip
    database = [
        program("victoria-metrics", missing_service), f"-storageDataPath={tmp_path / 'victoria'}", f"-httpListenAddr={victoria}",
        f"-promscrape.config={scrape}", "-search.latencyOffset=0s", "-dedup.minScrapeInterval=1ms",
    ]  # fmt: skip
    with running(scraper, tmp_path / "prometheus.log"), running(database, tmp_path / "victoria.log"), serving(config, tmp_path) as server:
        with PolicyClient(server.address, config=ClientConfig(waits_for_learner=False)) as client:
            for number in range(60):
                play(client, f"{number}", 20)
        expected = {"policy_server_actions_total": 1200.0, "policy_server_episodes_finished_total": 60.0, "policy_server_ready": 1.0}
        for address in (prometheus, victoria):
            for name, value in expected.items():
                wait_until(lambda a=address, n=name, v=value: v in asked(a, n)().values(), f"{name} in {address}", 120.0)  # type: ignore[misc]
        wait_until(lambda: 1.0 in asked(prometheus, 'up{job="policy-server"}')().values(), "the target", 120.0)
        wait_until(lambda: asked(prometheus, "policy_server_learner_iteration > 0")(), "an iteration", 200.0)
        slow = 'histogram_quantile(0.99, sum by (le) (policy_server_phase_seconds_bucket{phase="pass"}))'
        (p99,) = wait_until(asked(prometheus, slow), "the p99").values()
        assert 0.0 < p99 < 5.0
        rules = ask(prometheus, "/api/v1/rules")["data"]["groups"]
        assert {rule["health"] for group in rules for rule in group["rules"]} <= {"ok", "unknown"}
        lengths = wait_until(lambda: asked(victoria, "count_over_time(episode_length[10m])")(), "episodes as points", 120.0)
        assert sum(lengths.values()) > 0


def play(client: PolicyClient, name: str, steps: int) -> None:
    observation = np.zeros(4, np.float32)
    client.start_episode(name)
    for _ in range(steps):
        client.get_action(name, observation)
        client.log_returns(name, 1.0)
    client.end_episode(name, observation)
