"""What Ray, RLlib and the link say of an actor that is ended on purpose is held back; what they say of any other death stays."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from policyserver.server.config.algorithm import PLANNED_ENDS, _open_recreated
from policyserver.server.daemon.planned_deaths import ActorProcess, PlannedDeaths

pytestmark = pytest.mark.long  # Ray is imported
OURS, OTHER = "af9ebd2ec40944ad1317a57701000000", "1e64c775f339cc0fe0c0d95601000000"
RAYLET = (
    "A worker died or was killed while executing a task by an unexpected system error. To troubleshoot the problem, check the logs for the "
    "dead worker. Lease ID: 00 Worker ID: e6 Node ID: a6 Worker IP address: 127.0.0.1 Worker port: 40813 Worker PID: {pid} Worker exit "
    "type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2."
)


def unavailable(actor: str) -> str:
    return f"The actor {actor} is unavailable: IOError: The actor is restarting.. The task may or may not have been executed on the actor."


class Group:
    """An env runner group, of which `_open_recreated` opens runners."""

    def __init__(self) -> None:
        self.opened: list[int] = []

    def foreach_env_runner(self, _: object, *, remote_worker_ids: list[int], local_env_runner: bool, timeout_seconds: float) -> None:
        self.opened += remote_worker_ids


@pytest.fixture(autouse=True)
def adopted_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ray's messages go where all others go, as the daemon does."""
    import ray.rllib  # noqa: F401

    for name in ("ray", "ray.rllib"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)


@pytest.fixture
def group() -> Group:
    return Group()


@pytest.fixture
def deaths(group: Group) -> Iterator[PlannedDeaths]:
    made = PlannedDeaths(group)
    yield made
    made.close()


def say(manager_says_of: str, number: int) -> None:
    """Say of an actor's death what is said of each."""
    manager, sampling = logging.getLogger("ray.rllib.utils.actor_manager"), logging.getLogger("ray.rllib.execution.rollout_ops")
    manager.error(f"Ray error ({unavailable(manager_says_of)}), taking actor {number} out of service.")
    manager.exception(RuntimeError(unavailable(manager_says_of)))
    sampling.warning("No samples returned from remote workers. If you have a slow environment or model, consider ...")
    manager.warning(f"Bringing previously unhealthy, now-healthy actor {number} back into service.")
    link = logging.getLogger("policyserver.server.processes.remote_link")
    link.warning(f"the link to serving actor {number} on host2 ended: it is left out until it is heard of")


def test_a_planned_death_is_not_in_the_log_and_any_other_is(deaths: PlannedDeaths, group: Group, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    deaths.expect(1, OURS, ActorProcess("127.0.0.1", 40813, 14719))
    say(OURS, 1)
    _open_recreated(env_runner_group=group, env_runner_indices=[1])
    assert caplog.text == ""
    assert group.opened == [1]
    assert getattr(group, PLANNED_ENDS) == set()
    say(OURS, 1)
    _open_recreated(env_runner_group=group, env_runner_indices=[1, 2])
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "WARNING", "WARNING", "WARNING", "WARNING"]
    assert "serving actors [1, 2] were restarted" in caplog.text


def test_while_one_is_expected_the_death_of_another_and_a_failed_start_are_told(
    deaths: PlannedDeaths, group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    deaths.expect(1, OURS, ActorProcess("127.0.0.1", 40813, 14719))
    say(OTHER, 2)
    logging.getLogger("ray.rllib.utils.actor_manager").error("The actor died because of an error raised in its creation task, %s", OURS)
    _open_recreated(env_runner_group=group, env_runner_indices=[1, 2])
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [OTHER in text for text in told] == [True, True, False, False, False, False]
    assert "actor 2 back into service" in told[2]
    assert "link to serving actor 2" in told[3]
    assert "creation task" in told[4]
    assert told[5].startswith("serving actors [2] were restarted")


def test_what_the_replacement_was_given_up_for_is_told(deaths: PlannedDeaths, caplog: pytest.LogCaptureFixture) -> None:
    deaths.expect(1, OURS, ActorProcess("127.0.0.1", 40813, 14719))
    deaths.given_up(1)
    say(OURS, 1)
    assert len(caplog.records) == 5


def test_at_debug_they_are_in_the_log(deaths: PlannedDeaths, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    deaths.expect(1, OURS, ActorProcess("127.0.0.1", 40813, 14719))
    say(OURS, 1)
    assert [record.levelname for record in caplog.records] == ["DEBUG"] * 5


def test_what_ray_prints_of_the_process_is_held_back(group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    import ray._private.worker as worker

    before = worker.print_to_stdstream
    deaths = PlannedDeaths(group)
    deaths.expect(1, OURS, ActorProcess("127.0.0.1", 40813, 14719))
    for pid in (14719, 15000):
        worker.print_to_stdstream({"lines": [RAYLET.format(pid=pid)], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    worker.print_to_stdstream({"lines": ["something else of PID: 14719 "], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    said = capsys.readouterr().out
    assert "Worker PID: 14719 " not in said
    assert "Worker PID: 15000 " in said
    assert "something else" in said
    deaths.close()
    deaths.close()
    assert worker.print_to_stdstream is before


def test_without_a_plan_the_group_of_another_algorithm_is_told_of_all(caplog: pytest.LogCaptureFixture) -> None:
    plain = SimpleNamespace(foreach_env_runner=lambda *_, **__: None)
    _open_recreated(env_runner_group=plain, env_runner_indices=[1])
    assert "serving actors [1] were restarted" in caplog.text
