"""Grafana's dashboards: well formed, what the generator writes, and every query answered by a real InfluxDB with a run in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana.classic import COLUMNS
from deploy.grafana.make_dashboards import FOLDER, rendered
from policyserver.client import ServerStats
from policyserver.common.figures import known
from policyserver.monitoring.influx.config import InfluxConfig
from policyserver.monitoring.influx.sink import InfluxSink
from policyserver.monitoring.schema import TAGS, measurement
from policyserver.pipelines.config import PipelineConfig, PipelineRecordingConfig, PlayedEpisodesConfig, ServerConnectionConfig
from policyserver.pipelines.run import run_pipeline
from policyserver.pipelines.runtime.stop_signals import StopSignals
from policyserver.pipelines.server_watch import ServerWatch
from policyserver.server.daemon.serving_watch import ServingWatch
from policyserver.server.processes.serving_report import ServingReport
from tests.live_server import serving
from tests.recorded_run import WITH_REFUSALS, CountingDouble, record_run
from tests.services import InfluxServer, MissingService, wait_until

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / FOLDER).glob("*.json"))
DASHBOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FILES}
RUN = "20261121T032235Z-seed0"
STEPS = 20_000
PAUSE_S = 0.004
"""Of a service of which the run asks 1,250 times, two at a time: counters are recorded once a second, and their rates need two."""

COMMON_FUNCTIONS = {"count", "last", "max", "mean", "non_negative_derivative", "non_negative_difference", "percentile", "sum"}
"""Functions that are used here and that InfluxDB 1, 2 and 3 have; not so INTEGRAL, SAMPLE, HOLT_WINTERS and the moving averages but one."""

each_dashboard = pytest.mark.parametrize("name", DASHBOARDS)


def panel_queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["query"]


def variables(dashboard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


# The files ---------------------------------------------------------------------------------------------------------------------------


def test_the_files_are_what_the_generator_writes() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in FILES}
    assert written == rendered(), "stale: run `make dashboards` and commit the result"
    assert set(DASHBOARDS) == {"rewards", "learner", "serving", "pipelines"}


def test_no_two_dashboards_share_a_uid_or_a_title() -> None:
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@each_dashboard
def test_panels_are_numbered_and_lie_within_the_grid_without_overlap(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    assert "id" not in DASHBOARDS[name], "that is the database's to give"
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    assert len({panel["title"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS for place in places)
    cells = [(place["x"] + dx, place["y"] + dy) for place in places for dx in range(place["w"]) for dy in range(place["h"])]
    assert len(cells) == len(set(cells))


@each_dashboard
def test_a_figure_says_itself_from_where_on_it_is_good_or_bad(name: str) -> None:
    for panel in DASHBOARDS[name]["panels"]:
        if panel["type"] == "stat":
            defaults = panel["fieldConfig"]["defaults"]
            steps = defaults.get("thresholds", {}).get("steps", [])
            assert steps, f"{panel['title']} would be green up to 80 and red from there on"
            assert defaults["color"] == {"mode": "thresholds"}
            assert steps[0]["value"] is None
            colour_of_3 = [step["color"] for step in steps if step["value"] is None or step["value"] <= 3][-1]
            assert (colour_of_3 == "red") == (panel["title"] == "Failures"), panel["title"]
            assert len(steps) == 1 or "red" not in {steps[0]["color"]}, panel["title"]


@each_dashboard
def test_everything_asks_the_data_source_that_the_reader_chose(name: str) -> None:
    declared = variables(DASHBOARDS[name])
    assert declared["datasource"]["type"] == "datasource"
    assert declared["datasource"]["query"] == "influxdb"
    asking = [
        *(variable for variable in declared.values() if variable["type"] == "query"),
        *DASHBOARDS[name]["panels"],
        *(target for panel in DASHBOARDS[name]["panels"] for target in panel["targets"]),
    ]
    assert all(each["datasource"] == {"type": "influxdb", "uid": "${datasource}"} for each in asking)
    assert "__inputs" not in DASHBOARDS[name]


@each_dashboard
def test_a_query_uses_declared_variables_and_what_all_influxdbs_have(name: str) -> None:
    declared = variables(DASHBOARDS[name])
    assert declared["run"]["multi"]
    assert declared["run"]["includeAll"]
    assert set(declared) <= {"datasource", *TAGS}
    for title, query in panel_queries(DASHBOARDS[name]):
        used = set(re.findall(r"\$(\w+)", query))
        assert used <= {*declared, "timeFilter", "__interval"}, title
        assert "timeFilter" in used, title
        (source,) = re.findall(r'FROM "(\w+)"', query)
        assert used >= {tag for tag in measurement(source).tags if tag in declared}, f"{title}: the reader's choice has no effect"
        assert set(re.findall(r"(\w+)\(", query)) - {"time", "fill"} <= COMMON_FUNCTIONS, title


@each_dashboard
def test_the_series_of_a_panel_are_told_apart(name: str) -> None:
    for panel in DASHBOARDS[name]["panels"]:
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        aliases = [target["alias"] for target in panel["targets"]]
        assert len(set(aliases)) == len(aliases), panel["title"]
        for target in panel["targets"]:
            grouped = set(re.findall(r'"(\w+)"', target["query"].partition("GROUP BY")[2]))
            assert set(re.findall(r"\$tag_(\w+)", target["alias"])) == grouped, panel["title"]


# Their queries -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def influx(tmp_path_factory: pytest.TempPathFactory, missing_service: MissingService) -> Iterator[InfluxServer]:
    server = InfluxServer(tmp_path_factory.mktemp("influx"), missing_service)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def recorded(influx: InfluxServer, tmp_path_factory: pytest.TempPathFactory) -> InfluxServer:
    """An InfluxDB with a run in it."""
    sink = InfluxSink(InfluxConfig(url=influx.url, bucket=influx.bucket, spool_folder=tmp_path_factory.mktemp("spool")))
    record_run(sink, RUN, 4 * STEPS, pause_s=PAUSE_S)
    assert sink.flush(60.0)
    sink.close(10.0)
    return influx


def filled_in(query: str, chosen: dict[str, str]) -> str:
    """Replace every variable as Grafana does: one that chooses a tag by the chosen value, or by its `allValue`."""
    query = query.replace("$timeFilter", "time >= now() - 1h").replace("$__interval", "200ms")
    for tag in TAGS:
        query = query.replace(f"${tag}", re.escape(chosen[tag]) if tag in chosen else ".*")
    assert "$" not in query.replace("$/", ""), query
    return query


def unanswered(influx: InfluxServer, name: str, chosen: dict[str, str]) -> list[str]:
    """Execute every query of a dashboard; return the panels of which one had no value to show."""
    return [
        title
        for title, query in panel_queries(DASHBOARDS[name])
        if not any(
            value is not None for row in influx.query(filled_in(query, chosen)) for key, value in row.items() if key not in {"time", *TAGS}
        )
    ]


@pytest.mark.slow
@each_dashboard
def test_every_query_is_answered_for_all_runs_and_for_the_one_chosen(name: str, recorded: InfluxServer) -> None:
    assert unanswered(recorded, name, {}) == []
    assert unanswered(recorded, name, {"run": RUN, "policy": "PPO"}) == []


@pytest.mark.slow
@each_dashboard
def test_a_choice_leaves_everything_else_out(name: str, recorded: InfluxServer) -> None:
    for tag in set(variables(DASHBOARDS[name])) & set(TAGS):
        everything = [title for title, query in panel_queries(DASHBOARDS[name]) if f"${tag}$" in query]
        assert [title for title in unanswered(recorded, name, {tag: "nobody"}) if title in everything] == everything


@pytest.mark.slow
@each_dashboard
def test_every_variable_lists_what_was_recorded(name: str, recorded: InfluxServer) -> None:
    expected = {"run": {RUN}, "policy": {"PPO"}, "symbol": {"AAA", "BBB", "CCC", "DDD"}}
    for tag, variable in variables(DASHBOARDS[name]).items():
        if variable["type"] == "query":
            assert {row["value"] for row in recorded.query(variable["query"])} == expected[tag]


class Counted:
    """One serving process, as a pipeline hears of it and as the daemon does."""

    def stats_by_endpoint(self) -> dict[str, ServerStats]:
        return {"127.0.0.1:1": CountingDouble().stats()}

    def ask(self, timeout_s: float, on_late: Any) -> list[ServingReport]:
        return [ServingReport(known(stats)) for stats in self.stats_by_endpoint().values()]


def test_a_server_that_its_daemon_and_a_pipeline_tell_of_is_shown_once(influx: InfluxServer, tmp_path: Path) -> None:
    sink, server = InfluxSink(InfluxConfig(influx.url, influx.bucket, tmp_path / "spool")), Counted()
    tags = {"run": "twice", "policy": "PPO"}
    of_pipeline = ServerWatch(server, sink, tags | {"worker": "host-1", "process": "ou"})
    of_pipeline.start()
    of_daemon = ServingWatch(server.ask, sink, tags | {"worker": "server-2"})
    wait_until(lambda: sink.flush(10.0) and sink.statistics().stored >= 5, "both to have told of it")
    of_daemon.close()
    assert of_pipeline.stop()
    sink.close(10.0)
    panels = [panel for panel in DASHBOARDS["serving"]["panels"] if panel["type"] == "stat"]
    for panel in panels:
        rows = influx.query(filled_in(panel["targets"][0]["query"], {"run": "twice"}))
        assert len(rows) == 1, f"{panel['title']}: {rows}"
    assert len(panels) == 4


SMALL_SERVER = """
[algorithm.training]
train_batch_size_per_learner = 2000
minibatch_size = 500
num_epochs = 2
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pipeline_and_its_policy_server_fill_every_panel(influx: InfluxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUXDB_V2_URL", influx.url)
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", influx.bucket)
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", "not-for-logs")
    with serving(SMALL_SERVER, tmp_path) as server:
        config = PipelineConfig(
            server=ServerConnectionConfig(address=server.address),
            episodes=PlayedEpisodesConfig(steps=STEPS),
            rules=WITH_REFUSALS,
            recording=PipelineRecordingConfig(run="run", policy="PPO", store=tmp_path / "run" / "store.sqlite", run_folder=None),
        )
        assert run_pipeline(config, StopSignals()).run.steps >= STEPS
    chosen = {"run": "run", "policy": "PPO"}
    assert [(name, title) for name in DASHBOARDS for title in unanswered(influx, name, chosen)] == []
    iterations = influx.query("""SELECT iteration FROM train WHERE "run" = 'run'""")
    assert [row["iteration"] for row in iterations] == list(range(1, len(iterations) + 1))
    (sinks,) = influx.query("""SELECT last(accepted), last(dead_lettered) FROM sink WHERE "run" = 'run' AND "worker" =~ /^server/""")
    assert sinks["last"] > 0, "the server tells of its sinks, too"
    written = [path for path in tmp_path.rglob("*") if path.is_file() and b"not-for-logs" in path.read_bytes()]
    assert not written, "the token lies somewhere"
