"""A daemon says at /metrics what its serving processes, its learner and its sinks counted, and at /readyz whether it serves."""

from __future__ import annotations

import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from docs.site import openmetrics
from policyserver.common.server_stats import PolicyFigures, TrainingIteration
from policyserver.monitoring.page.web_server import WebServer
from policyserver.monitoring.points import Points
from policyserver.monitoring.sink import MultiSink
from policyserver.monitoring.store.store import EmbeddedStore
from policyserver.server.daemon import daemon_metrics
from policyserver.server.daemon.daemon_metrics import DaemonMetrics
from policyserver.server.episodes.pass_timing import DoublingHistogram
from policyserver.server.processes.serving_report import ServingReport

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DaemonMetrics:
    monkeypatch.setattr(daemon_metrics, "PRESENT_S", 600.0)  # a machine that stands still for some seconds takes no figures away
    return DaemonMetrics(tmp_path, tmp_path / "store.sqlite")


@pytest.fixture
def address(metrics: DaemonMetrics) -> Iterator[str]:
    with contextlib.closing(WebServer()) as server:
        server.serve(metrics.routes(), "metrics")
        yield server.address


def get(url: str, accept: str = "application/openmetrics-text; version=1.0.0") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60.0) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def parsed(text: str) -> list[Any]:
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def scraped(address: str) -> Samples:
    status, text = get(f"{address}/metrics")
    assert status == 200
    samples = [sample for family in parsed(text) for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples), "each once"
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def report(boot: str = "0123456789abcdef", actions: int = 7) -> ServingReport:
    rows, passed = DoublingHistogram(), DoublingHistogram()
    for size in (1, 3, 64):
        rows.add(size)
    passed.add(1500)
    return ServingReport(
        {"boot_id": boot, "actions": actions, "uptime_s": 2.5, "staleness_mean": 0.25},
        calls={("GetStats", "OK"): 3, ("GetAction", "NOT_FOUND"): 1},
        rows=rows.copy(),
        phases={"pass": passed.copy(1e-6)},
        queues={"learner_steps": 12.0, "learner_bytes": 4096.0, "room": 1.0, "questions_rows": 0.0, "questions_bytes": 0.0},
        process={"cpu_seconds": 1.5, "threads": 9.0, "resident_memory_bytes": 1e6, "open_fds": 20.0},
    )


@pytest.mark.long
def test_it_is_ready_while_a_serving_process_answers(metrics: DaemonMetrics, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get(f"{address}/healthz") == (200, "ok\n")
    assert get(f"{address}/readyz") == (503, "no serving process answers\n")
    metrics.serving(report())
    assert get(f"{address}/readyz") == (200, "ok\n")
    monkeypatch.setattr(daemon_metrics, "PRESENT_S", 0.0)
    assert get(f"{address}/readyz")[0] == 503
    assert not [name for name, _ in scraped(address) if name == "policy_server_actions_total"], "nor are its old figures told on"
    monkeypatch.setattr(daemon_metrics, "PRESENT_S", 600.0)
    assert get(f"{address}/readyz")[0] == 200
    metrics.is_stopping = True
    assert get(f"{address}/readyz") == (503, "it stops\n")


@pytest.mark.long
def test_figures_of_serving_are_there_by_process(metrics: DaemonMetrics, address: str) -> None:
    metrics.serving(report())
    metrics.serving(report("f" * 32, actions=100))
    samples = scraped(address)
    one = "serving-01234567"
    assert value(samples, "policy_server_actions_total", process=one) == 7
    assert value(samples, "policy_server_actions_total", process="serving-ffffffff") == 100
    assert value(samples, "policy_server_uptime_seconds", process=one) == 2.5
    assert value(samples, "policy_server_grpc_calls_total", process=one, method="GetAction", code="NOT_FOUND") == 1
    assert value(samples, "policy_server_pass_rows_bucket", process=one, le="1.0") == 1
    assert value(samples, "policy_server_pass_rows_bucket", process=one, le="4.0") == 2
    assert value(samples, "policy_server_pass_rows_bucket", process=one, le="64.0") == 3
    assert value(samples, "policy_server_pass_rows_sum", process=one) == 68
    slow = {le: count for (name, labels), count in samples.items() if name == "policy_server_phase_seconds_bucket"
            for label, le in labels if label == "le" and ("process", one) in labels}  # fmt: skip
    assert (slow["0.001024"], slow["0.002048"], slow["+Inf"]) == (0, 1, 1)
    assert value(samples, "policy_server_learner_queue_bytes", process=one) == 4096
    assert value(samples, "policy_server_process_open_fds", process=one) == 20
    assert value(samples, "policy_server_process_resident_memory_bytes", process="daemon") > 1e7
    assert value(samples, "policy_server_serving_starts_total") == 2
    assert value(samples, "policy_server_disk_free_bytes") > 0


def test_clients_that_choose_actions_themselves_have_counters_of_their_own(metrics: DaemonMetrics, address: str) -> None:
    name = 'stream:a "desk"\n'
    metrics.serving(replace(report(), by_hand={name: (40, 5, 2)}, by_hand_dropped=3))
    samples, by = scraped(address), {"process": "serving-01234567", "client": name}
    counted = [value(samples, f"policy_server_client_actions{which}_total", **by) for which in ("", "_given", "_overridden")]
    assert counted == [40, 5, 2]
    assert value(samples, "policy_server_clients_by_hand_dropped_total", process="serving-01234567") == 3


def test_what_each_policy_came_to_is_told_with_what_a_shadow_could_not_decide(metrics: DaemonMetrics, address: str) -> None:
    figures = PolicyFigures("live", 3, 30, 12.5, 10.0), PolicyFigures("candidate shadow", actions=20, agreement=0.75, rows_failed=4)
    metrics.serving(replace(report(), policies=figures))
    samples = scraped(address)
    for name, policy, expected in (
        ("episodes_finished_total", "live", 3),
        ("return_mean", "live", 12.5),
        ("agreement", "candidate shadow", 0.75),
        ("rows_failed_total", "candidate shadow", 4),
    ):
        assert value(samples, f"policy_server_policy_{name}", process="serving-01234567", policy=policy) == expected


@pytest.mark.long
def test_figures_of_learning_and_recording_are_there(metrics: DaemonMetrics, address: str, tmp_path: Path) -> None:
    assert ("policy_server_learner_iteration_timestamp_seconds", frozenset()) not in scraped(address)
    metrics.iteration(TrainingIteration(iteration=3, loss=0.5, steps=200, steps_total=600, steps_behind_1=50))
    metrics.iteration_failed()
    metrics.guard_fired("kl")
    metrics.is_paused_by_guard = True
    store = EmbeddedStore(tmp_path / "store.sqlite")
    metrics.records_to(MultiSink([store]))
    store.write(Points.one("train", {"run": "r"}, {"iteration": 3}))
    assert store.flush(60.0)
    samples = scraped(address)
    store.close(30.0)
    assert value(samples, "policy_server_learner_iteration") == 3
    assert value(samples, "policy_server_learner_loss") == 0.5
    assert value(samples, "policy_server_learner_iteration_steps") == 200
    assert value(samples, "policy_server_learner_steps_total") == 600
    assert value(samples, "policy_server_learner_iteration_steps_behind_1") == 50
    assert value(samples, "policy_server_learner_failures_total") == 1
    assert value(samples, "policy_server_guard_fired_total", reason="kl") == 1
    assert value(samples, "policy_server_guard_fired_total", reason="batch") == 0, "from the start, so that a rate sees the first"
    assert value(samples, "policy_server_guard_paused") == 1
    assert abs(value(samples, "policy_server_learner_iteration_timestamp_seconds") - time.time()) < 60.0
    assert value(samples, "policy_server_sink_points_stored_total", sink="EmbeddedStore") == 1
    assert value(samples, "policy_server_store_bytes") > 4096
    assert ("policy_server_learner_kl", frozenset()) not in samples, "what is unknown has no sample"


@pytest.mark.long
def test_an_older_prometheus_is_answered_in_its_own_form(address: str) -> None:
    status, text = get(f"{address}/metrics", accept="text/plain; version=0.0.4")
    assert status == 200
    assert "# TYPE policy_server_serving_starts_total counter" in text


def test_the_page_of_metrics_is_current() -> None:
    assert Path("docs/openmetrics.md").read_text(encoding="utf-8") == openmetrics.markdown()
    for families in openmetrics.families().values():
        names = [family.name for family in families]
        assert len(names) == len(set(names))
