"""Leaves serving actors that are silent out at once: RLlib notices them after a minute, and waits for them until then.

RLlib's manager of actors is one thread's, which iterates over what a change of an actor's state removes. So the link's threads only note
who is silent, at which a wait ends; the main thread takes them out of service before it chooses actors the next time.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from policyserver.server.daemon.answering_actors import AnsweringActors
from policyserver.server.daemon.hand_offs import HandOffs
from policyserver.server.daemon.shares_of_batch import SharesOfBatch

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

_SLICE_S = 0.1
"""How long Ray is waited for between two looks at what is silent: its wait can't be woken."""
_PROBE_S = 1.0
"""How long an actor that was left out is waited for, before each iteration. After a heal TCP may take half a minute to send again what Ray
had to say, and the learner would wait for that."""


_CHOOSING = ("foreach_actor", "foreach_actor_async", "healthy_actor_ids", "num_healthy_actors")
"""Methods of RLlib's manager that choose among the actors by their state, or say which there are to choose from."""


class ActorHealth:
    """What the link says of the serving actors, told to RLlib's manager of them. `watch` and the manager are the main thread's."""

    def __init__(self) -> None:
        """Begin without an algorithm; `watch` brings it."""
        self._lock = threading.Lock()
        self._silent: set[int] = set()
        self._fell_silent: set[int] = set()
        """Actors that have been silent since the main thread looked last, also where they are heard of again: Ray's own connection may not
        be whole, and RLlib has to bring them weights."""
        self._manager: Any = None
        self._shares: SharesOfBatch | None = None
        self.answering: AnsweringActors | None = None
        """Which of those out of service answer; None before `watch`."""
        self.hand_offs = HandOffs()
        """What arrives of the steps that the actors hand off."""

    @property
    def silent(self) -> list[int]:
        """RLlib's indices of the actors that are silent. From any thread."""
        with self._lock:
            return sorted(self._silent)

    def watch(self, algorithm: Algorithm) -> None:
        """Tell this algorithm's manager from now on, and let it wait for no actor that is silent, whatever its own time-outs are."""
        group = algorithm.env_runner_group
        manager = group._worker_manager
        fetch, probe = manager._fetch_result, group.probe_unhealthy_env_runners

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

        answering = self.answering = AnsweringActors(group)

        def probe_answering() -> list[int]:
            answered = self._answer_again(manager, answering)
            if not answered and not manager._restored_actors:
                return []
            answering.forget(answered)
            return list(probe())

        with self._lock:
            self._manager, self._shares = manager, SharesOfBatch(algorithm)
            self._fell_silent |= self._silent
            for index in self._silent:
                self._do_without_share(index)
        manager._fetch_result = fetch_of_heard
        for name in _CHOOSING:
            setattr(manager, name, self._of_heard(getattr(manager, name)))
        group.probe_unhealthy_env_runners = probe_answering

    def note(self, index: int, is_silent: bool) -> None:
        """Take note of an actor that is silent or is heard of again. From any thread.

        One that is heard of again is not called healthy here: RLlib's probe finds it so once it answers Ray's calls, and brings it weights.
        """
        with self._lock:
            (self._silent.add if is_silent else self._silent.discard)(index)
            if is_silent:
                self._fell_silent.add(index)
                self._do_without_share(index)

    def _of_heard(self, choose: Any) -> Any:
        @functools.wraps(choose)
        def hooked(*arguments: Any, **named: Any) -> Any:
            self._leave_out()
            return choose(*arguments, **named)

        return hooked

    def _answer_again(self, manager: Any, answering: AnsweringActors) -> set[int]:
        """Return the actors for which RLlib's probe is worth its wait, which holds up learning, also where Ray needs longer to heal.

        A silent actor is asked nothing, for all that would wait for it.
        """
        self._leave_out()
        unhealthy = {index for index in manager.actor_ids() if not manager.is_actor_healthy(index)}
        with self._lock:
            asked = unhealthy - self._silent
        return answering.among(asked)

    def _leave_out(self) -> None:
        """Take silent actors out of service, also one that RLlib's probe has just brought back. In the main thread."""
        with self._lock:
            left_out, self._fell_silent = self._silent | self._fell_silent, set()
        for index in left_out:
            if index in self._manager.actor_ids() and self._manager.is_actor_healthy(index):
                self._manager.set_actor_state(index, False)

    def _do_without_share(self, index: int) -> None:
        """Let the batch that is collected now do without an actor's share. Under the lock."""
        if self._shares is not None and index in self._manager.actor_ids():
            self._shares.leave_out(index)

    def _gives_up(self, indices: Sequence[int], calls: list[Any], timeout_s: float | None) -> bool:
        """Wait until all calls are answered, or the time is over, or those that are missing are of silent actors: then say True."""
        import ray

        by_call = dict(zip(calls, indices, strict=True))
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        missing = list(calls)
        while missing:
            with self._lock:
                silent = self._silent | self._fell_silent
            if all(by_call[call] in silent for call in missing):
                return True
            left_s = _SLICE_S if deadline_s is None else min(_SLICE_S, deadline_s - time.monotonic())
            if left_s <= 0:
                return True
            _, missing = ray.wait(missing, num_returns=len(missing), timeout=left_s)
        return False
