"""The alert rules name metrics that there are, hold by promtool, and a real Prometheus scrapes a real server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.site import openmetrics
from tests.services import MissingService, program

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
_ENDINGS = ("_total", "_bucket", "_sum", "_count")

RULE_TESTS = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'policy_server_ready{{instance="a"}}', values: '1x40'}}
      - {{series: 'policy_server_learner_iteration{{instance="a"}}', values: '1+1x10 11x40'}}
      - {{series: 'policy_server_learner_enabled{{instance="a"}}', values: '1x50'}}
      - {{series: 'policy_server_actions_total{{instance="a", process="s"}}', values: '0+100x50'}}
      - {{series: 'policy_server_learner_iteration{{instance="paused"}}', values: '1x50'}}
      - {{series: 'policy_server_learner_enabled{{instance="paused"}}', values: '0x50'}}
      - {{series: 'policy_server_actions_total{{instance="paused", process="s"}}', values: '0+100x50'}}
      - {{series: 'policy_server_steps_dropped_total{{instance="a", process="s"}}', values: '0x40'}}
      - {{series: 'policy_server_sink_points_dead_lettered_total{{instance="a", sink="InfluxSink"}}', values: '0x30 1x20'}}
      - {{series: 'policy_server_disk_free_bytes{{instance="a"}}', values: '5e9x20 1e9x20'}}
      - {{series: 'policy_server_serving_starts_total{{instance="a"}}', values: '1x10 2x40'}}
      - {{series: 'policy_server_serving_processes{{instance="a"}}', values: '1x50'}}
      - {{series: 'policy_server_guard_fired_total{{instance="a", reason="loss"}}', values: '0x20 1x30'}}
      - {{series: 'policy_server_guard_paused{{instance="a"}}', values: '0x20 1x30'}}
      - {{series: 'policy_server_serving_silent{{instance="a"}}', values: '0x20 1x30'}}
    alert_rule_test:
      - {{eval_time: 9m, alertname: PolicyServerDoesNotLearn}}
      - {{eval_time: 9m, alertname: PolicyServerActorRestarts}}
      - {{eval_time: 35m, alertname: PolicyServerDropsSteps}}
      - {{eval_time: 19m, alertname: PolicyServerGuardFired}}
      - {{eval_time: 19m, alertname: PolicyServerPausedByGuard}}
      - {{eval_time: 19m, alertname: PolicyServerActorSilent}}
      - eval_time: 24m
        alertname: PolicyServerActorSilent
        exp_alerts:
          - exp_labels: {{severity: page, instance: a}}
            exp_annotations: {{summary: "Serving actors of a are silent, 1 of them: they serve an old version, and learn nothing."}}
      - eval_time: 22m
        alertname: PolicyServerGuardFired
        exp_alerts:
          - exp_labels: {{severity: warn, instance: a, reason: loss}}
            exp_annotations: {{summary: "The guard of a undid what was learned, for its loss; see `policy-server ctl status`."}}
      - eval_time: 22m
        alertname: PolicyServerPausedByGuard
        exp_alerts:
          - exp_labels: {{severity: page, instance: a}}
            exp_annotations: {{summary: "The guard has paused learning at a; it serves, and waits for `policy-server ctl resume`."}}
      - eval_time: 35m
        alertname: PolicyServerDoesNotLearn
        exp_alerts:
          - exp_labels: {{severity: page, instance: a}}
            exp_annotations: {{summary: "a serves, but has finished no training iteration for a quarter of an hour."}}
      - eval_time: 12m
        alertname: PolicyServerActorRestarts
        exp_alerts:
          - exp_labels: {{severity: warn, instance: a}}
            exp_annotations: {{summary: "A serving process of a died and was started again."}}
      - eval_time: 33m
        alertname: PointsDeadLettered
        exp_alerts:
          - exp_labels: {{severity: warn, instance: a, sink: InfluxSink}}
            exp_annotations: {{summary: "InfluxSink of a put points aside that its database refuses; they are in dead.lp."}}
      - eval_time: 30m
        alertname: DiskNearlyFull
        exp_alerts:
          - exp_labels: {{severity: page, instance: a}}
            exp_annotations: {{summary: "953.7MiB are left on the disk of the run folder at a."}}
"""


def promtool(missing_service: MissingService, *arguments: str) -> None:
    done = subprocess.run([program("promtool", missing_service), *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def names_of(rules: str) -> Iterator[str]:
    """Yield the metrics that the rules ask for."""
    for expression in re.findall(r"expr: (.*)", rules):
        yield from re.findall(r"policy_(?:server|pipeline)_\w+", expression)
        for pattern in re.findall(r"policy_\(server\|pipeline\)_(\w+)", expression):
            yield from (f"policy_{process}_{pattern}" for process in ("server", "pipeline"))


def test_the_rules_are_about_metrics_that_there_are() -> None:
    known = {family.name for families in openmetrics.families().values() for family in families}
    asked = set(names_of((FOLDER / "alerts.yml").read_text(encoding="utf-8")))
    assert len(asked) > 10
    assert {name for name in asked if name not in known and not any(name.removesuffix(end) in known for end in _ENDINGS)} == set()


@pytest.mark.process
def test_promtool_takes_rules_and_configuration_and_the_alerts_fire_when_they_should(
    tmp_path: Path, missing_service: MissingService
) -> None:
    promtool(missing_service, "check", "config", str(FOLDER / "prometheus.yml"))
    tests = tmp_path / "tests.yml"
    tests.write_text(RULE_TESTS.format(rules=FOLDER / "alerts.yml"), encoding="utf-8")
    promtool(missing_service, "test", "rules", str(tests))
