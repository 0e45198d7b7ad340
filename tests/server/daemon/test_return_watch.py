"""The guard on the return saves, measures, releases and goes back, and begins anew where somebody else went back."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.daemon import return_watch
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError
from policyserver.server.daemon.return_watch import ReturnWatch
from policyserver.server.daemon.roll_back import NotWrittenError, RollBack
from policyserver.server.processes.serving_report import ServingReport
from policyserver.server.processes.training_report import Progress

EPISODES = 20


class Learner:
    """What the watch knows of learning, with the calls that it gets."""

    def __init__(self) -> None:
        self.newest_lineage = 0
        self.newest_version = 0
        self.held: list[int] = []
        self.saved: list[Future[tuple[Checkpoint, int, float]]] = []
        self.rolled_back: list[int] = []
        self.is_full = False
        self.told: list[str] = []
        self.guard = SimpleNamespace(tell_of_return=lambda what, *_: self.told.append(what))

    def save_and_hold(self) -> Future[tuple[Checkpoint, int, float]]:
        self.saved.append(Future())
        return self.saved[-1]

    def has_saved(self) -> None:
        number = len(self.saved)
        self.held.append(number)
        self.saved[-1].set_result((Checkpoint(Path(f"checkpoint-{number:08d}"), Progress()), self.newest_version, 0.0))

    def release(self, checkpoint: Checkpoint) -> None:
        self.held.remove(checkpoint.number)

    def roll_back(self, number: int, served_version: int) -> RollBack:
        self.rolled_back.append(number)
        self.newest_lineage += 1
        self.newest_version = served_version + 1
        order = RollBack(Checkpoint(Path(f"checkpoint-{number:08d}"), Progress()), self.newest_version, self.newest_lineage)
        if self.is_full:
            raise NotWrittenError(order, CheckpointError("No space left on device"))
        return order


class Watched:
    """A watch, and episodes for it."""

    def __init__(self) -> None:
        self.learner = Learner()
        config = GuardConfig(on_return=True, return_episodes=EPISODES)
        self.exploration = 0
        self.watch = ReturnWatch(config, self.learner, lambda: self.exploration)  # type: ignore[arg-type]

    def play(self, returned: float, episodes: int = EPISODES, **columns: Any) -> None:
        """Have some episodes end by the newest version, their returns a little apart."""
        whole = {"ended": "terminated", "explored": True, "trained": True, "given": 0, "weights_seq_no": self.learner.newest_version}
        rows = {name: [value] * episodes for name, value in (whole | columns).items()}
        counters = {"weights_seq_no": self.learner.newest_version}
        self.watch.report(ServingReport(counters, {"return": [returned + 0.01 * number for number in range(episodes)], **rows}))
        self.learner.newest_version += 1

    def with_incumbent(self, returned: float) -> None:
        """Save, and measure what was saved."""
        self.play(returned)
        self.learner.has_saved()
        self.play(returned)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(return_watch, "_REST", 0.0)


def test_it_goes_back_to_the_incumbent_and_holds_its_checkpoint_alone() -> None:
    watched = Watched()
    watched.with_incumbent(1.0)
    watched.with_incumbent(5.0)
    assert watched.learner.held == [2], "the one before it is released"
    watched.play(2.0)
    assert watched.learner.rolled_back == [2]
    assert watched.learner.held == [2]
    assert f"{EPISODES // 2} episodes have a mean return of 2.1" in watched.learner.told[0]
    watched.play(5.0)
    watched.play(2.0)
    assert watched.learner.rolled_back == [2, 2], "measured again"


def test_what_is_no_better_when_measured_is_released() -> None:
    watched = Watched()
    watched.with_incumbent(5.0)
    watched.play(6.0)
    watched.learner.has_saved()
    watched.play(4.99)
    assert watched.learner.held == [1]


@pytest.mark.parametrize("has_incumbent", [False, True])
def test_what_is_no_longer_measured_for_another_range_of_exploration_has_come_is_released(has_incumbent: bool) -> None:
    watched = Watched()
    if has_incumbent:
        watched.with_incumbent(1.0)
    for exploration in (9, 8, 7):
        watched.exploration = exploration
        watched.play(5.0)
        watched.learner.has_saved()
        watched.play(5.0, EPISODES // 2)
    assert watched.learner.held == ([1] if has_incumbent else []) + [len(watched.learner.saved)]


def test_after_somebody_else_went_back_all_begins_anew_and_what_was_saved_is_let_go() -> None:
    watched = Watched()
    watched.with_incumbent(5.0)
    watched.play(6.0)
    watched.learner.newest_lineage += 1
    watched.learner.newest_version += 5
    watched.play(1.0, 5)
    watched.learner.has_saved()
    assert watched.learner.held == [1]
    for _ in range(3):
        watched.play(1.0)
    assert watched.learner.rolled_back == [], "it is no fault of the policy"
    assert len(watched.learner.saved) == 3, "the next incumbent"


@pytest.mark.parametrize(
    "other", [{"ended": "lost"}, {"explored": False}, {"trained": False}, {"given": 1}], ids=["lost", "greedy", "not trained on", "by hand"]
)
def test_other_episodes_are_not_compared(other: dict[str, Any]) -> None:
    watched = Watched()
    watched.with_incumbent(5.0)
    for _ in range(3):
        watched.play(0.0, **other)
    assert watched.learner.rolled_back == []
    watched.play(0.0)
    assert watched.learner.rolled_back == [1]


def test_on_a_full_disk_it_goes_back_tells_it_and_counts_on(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.learner.is_full = True
    watched.learner.guard.tell_of_return = lambda what, checkpoint, version, in_a_row: watched.learner.told.append(f"{version}: {in_a_row}")
    watched.with_incumbent(5.0)
    watched.play(0.0)
    watched.play(5.0)
    watched.play(0.0)
    assert watched.learner.rolled_back == [1, 1], "the incumbent stands and is measured again"
    assert [told.split(": ")[1] for told in watched.learner.told] == ["1", "2"]
    assert "served as policy version" in caplog.text
    assert "No space left on device" in caplog.text
    assert watched.learner.held == [1]


def test_it_goes_back_also_where_the_episodes_that_ended_last_are_not_compared() -> None:
    watched = Watched()
    watched.play(5.0)
    watched.learner.has_saved()
    version = watched.learner.newest_version
    both = [5.0 + 0.01 * number for number in range(EPISODES)] + [0.01 * number for number in range(EPISODES)]
    rows = {"ended": "terminated", "explored": True, "trained": True, "given": 0, "weights_seq_no": version}
    watched.watch.report(ServingReport({}, {"return": both, **{name: [value] * len(both) for name, value in rows.items()}}))
    watched.learner.newest_version = version + 4
    watched.play(0.0, 3, explored=False)
    assert watched.learner.rolled_back == [1]
    assert watched.learner.newest_version == version + 6, "higher than the one that is served, and an update since"
