"""Leaves serving actors that are silent out at once: RLlib notices them after a minute, and waits for them until then."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.hand_offs import HandOffs
from policyserver.server.daemon.shares_of_batch import SharesOfBatch

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

_SLICE_S = 0.1
"""How long Ray is waited for between two looks at what is silent: its wait can't be woken."""
_PROBE_S = 1.0
"""How long an actor that was left out is waited for, before each iteration. After a heal TCP may take half a minute to send again what Ray
had to say, and the learner would wait for that."""


class ActorHealth:
    """What the link says of the serving actors, told to RLlib's manager of them. From any thread."""

    def __init__(self) -> None:
        """Begin without an algorithm; `watch` brings it."""
        self._lock = threading.Lock()
        self._silent: set[int] = set()
        self._manager: Any = None
        self._shares: SharesOfBatch | None = None
        self._asked: dict[int, Any] = {}
        """By actor, the question to one that is out of service whether it answers. Of the main thread."""
        self.hand_offs = HandOffs()
        """What arrives of the steps that the actors hand off."""

    @property
    def silent(self) -> list[int]:
        """RLlib's indices of the actors that are silent."""
        with self._lock:
            return sorted(self._silent)

    def watch(self, algorithm: Algorithm) -> None:
        """Tell this algorithm's manager from now on, and let it wait for no actor that is silent, whatever its own time-outs are."""
        manager = algorithm.env_runner_group._worker_manager
        fetch = manager._fetch_result

        def fetch_of_heard(
            *, remote_actor_ids: list[int], remote_calls: list[Any], timeout_seconds: float | None = None, **others: Any
        ) -> Any:
            if others.get("mark_healthy"):  # it asks those that were left out whether they are back
                timeout_seconds = _PROBE_S if timeout_seconds is None else min(timeout_seconds, _PROBE_S)
            if timeout_seconds != 0.0 and self._gives_up(remote_actor_ids, remote_calls, timeout_seconds):
                timeout_seconds = 0.0
            fetched = fetch(remote_actor_ids=remote_actor_ids, remote_calls=remote_calls, timeout_seconds=timeout_seconds, **others)
            self.hand_offs.look((result.actor_id, result.get()) for result in fetched[1] if result.ok)
            return fetched

        manager._fetch_result = fetch_of_heard
        group = algorithm.env_runner_group
        probe = group.probe_unhealthy_env_runners

        def probe_answering() -> list[int]:
            return list(probe()) if self._answer_again(manager) else []

        group.probe_unhealthy_env_runners = probe_answering
        with self._lock:
            self._manager, self._shares = manager, SharesOfBatch(algorithm)
            for index in self._silent:
                self._leave_out(index)

    def note(self, index: int, is_silent: bool) -> None:
        """Take note of an actor that is silent or is heard of again.

        One that is heard of again is not called healthy here: RLlib's probe finds it so once it answers Ray's calls, and brings it weights.
        """
        with self._lock:
            (self._silent.add if is_silent else self._silent.discard)(index)
            if is_silent:
                self._leave_out(index)

    def _answer_again(self, manager: Any) -> bool:
        """Tell whether RLlib's probe is worth its wait, which holds up learning, also where Ray's own connection needs longer to heal.

        A silent actor is asked nothing, for all that would wait for it. The others that are out of service are asked whether they answer.
        """
        import ray

        unhealthy = {index for index in manager.actor_ids() if not manager.is_actor_healthy(index)}
        with self._lock:
            asked = unhealthy - self._silent
        self._asked = {index: self._asked.get(index) or manager._actors[index].ping.remote() for index in asked}
        answered = ray.wait(list(self._asked.values()), num_returns=len(asked), timeout=0.0)[0] if asked else []
        for index in [index for index, question in self._asked.items() if question in answered]:  # by an error, too
            del self._asked[index]
        return bool(answered or manager._restored_actors)

    def _leave_out(self, index: int) -> None:
        if self._manager is not None and index in self._manager.actor_ids():
            self._manager.set_actor_state(index, False)
            if self._shares is not None:
                self._shares.leave_out(index)

    def _gives_up(self, indices: Sequence[int], calls: list[Any], timeout_s: float | None) -> bool:
        """Wait until all calls are answered, or the time is over, or those that are missing are of silent actors: then say True."""
        import ray

        by_call = dict(zip(calls, indices, strict=True))
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        missing = list(calls)
        while missing:
            with self._lock:
                if all(by_call[call] in self._silent for call in missing):
                    return True
            left_s = _SLICE_S if deadline_s is None else min(_SLICE_S, deadline_s - time.monotonic())
            if left_s <= 0:
                return True
            _, missing = ray.wait(missing, num_returns=len(missing), timeout=left_s)
        return False
