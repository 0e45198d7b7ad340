"""An update does without episodes that do not come in time, and waits less long for those after them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.rllib.core.learner.training_data import TrainingData

from policyserver.server.daemon.bounded_fetch import _bound

pytestmark = [pytest.mark.usefixtures("private_ray"), pytest.mark.long]

LONGEST_S = 1.0


@pytest.fixture
def never() -> Iterator[Any]:
    """A reference to what does not come."""

    reference = ray.remote(num_cpus=0)(lambda: time.sleep(3600.0)).remote()
    yield reference
    ray.cancel(reference, force=True)


def bound(*, is_alone: bool = True) -> tuple[Any, list[Any]]:
    """Return a learner, and what its updates are made of."""
    updates: list[Any] = []

    def update(training_data: TrainingData, **_: Any) -> dict[str, float]:
        updates.append(training_data.episodes_refs)
        return {"loss": 1.0}

    learner = SimpleNamespace(update=update)
    _bound(learner, longest_s=LONGEST_S, is_alone=is_alone)
    return learner, updates


def test_what_does_not_come_is_done_without(never: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    waits_s: list[float] = []
    wait = ray.wait

    def noted(*arguments: Any, timeout: float, **others: Any) -> Any:
        waits_s.append(timeout)
        return wait(*arguments, timeout=timeout, **others)

    monkeypatch.setattr(ray, "wait", noted)
    learner, updates = bound()
    first, second = ray.put(["a"]), ray.put(["b"])
    assert learner.update(TrainingData(episodes_refs=[first, second]), timesteps={}) == {"loss": 1.0}
    began_s = time.monotonic()
    learner.update(TrainingData(episodes_refs=[first, never, second]))
    assert LONGEST_S <= time.monotonic() - began_s < 60.0
    assert updates == [[first, second], [first, second]]
    assert "does without 1 of 3 samples" in caplog.text
    assert learner.update(TrainingData(episodes_refs=[never])) == {}, "nothing to learn from"
    assert waits_s == [LONGEST_S, LONGEST_S, LONGEST_S / 2]
    assert len(updates) == 2


def test_episodes_that_are_here_are_left_alone() -> None:
    learner, updates = bound()
    learner.update(TrainingData(episodes=["an episode"]))
    assert updates == [None]


def test_of_a_group_none_leaves_an_update_out(never: Any) -> None:
    learner, updates = bound(is_alone=False)
    learner.update(TrainingData(episodes_refs=[never]))
    assert updates == [[never]], "the others would wait for it"
