"""RLlib's own manager of actors, with actors that need no Ray: what they answer is what the test gives them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ray.rllib.utils.actor_manager import FaultTolerantActorManager, RemoteCallResults, ResultOrError


class Actor:
    """An actor that notes what it is called for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.apply = SimpleNamespace(remote=self._remote)

    def _remote(self, **_: Any) -> str:
        self.calls.append(f"call {len(self.calls)} of {id(self)}")
        return self.calls[-1]


class Manager(FaultTolerantActorManager):  # type: ignore[misc]
    """RLlib's manager of actors 1 to n; `_fetch_result`, which is where it enters Ray, returns the test's `answers`."""

    def __init__(self, actors: int = 2) -> None:
        self.made: list[Any] = [Actor() for _ in range(actors)]
        super().__init__(self.made, init_id=1)
        self.answers: list[tuple[int, Any]] = []
        self.timeouts_s: list[float | None] = []

    def _fetch_result(self, *, timeout_seconds: float | None = None, **_: Any) -> tuple[list[Any], RemoteCallResults]:
        self.timeouts_s.append(timeout_seconds)
        results = RemoteCallResults()
        for index, answer in self.answers:
            is_error = isinstance(answer, Exception)
            results.add_result(index, ResultOrError(error=answer) if is_error else ResultOrError(result=answer), "")
        return [None] * len(self.answers), results


def algorithm_of(manager: Manager) -> Any:
    """Return what an algorithm with this manager has that is hooked into."""
    return SimpleNamespace(
        env_runner_group=SimpleNamespace(_worker_manager=manager, probe_unhealthy_env_runners=list, foreach_env_runner=list),
        config=SimpleNamespace(num_env_runners=2, total_train_batch_size=64),
        learner_group=SimpleNamespace(update=list),
        training_step=dict,
    )
