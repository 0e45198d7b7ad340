"""Tells which serving actors that are out of service would answer RLlib's calls, without a wait.

After a heal each connection of Ray's has a time of its own at which TCP sends again, up to half a minute later: that of calls, and those
by which objects go to a node and come back. RLlib's probe asks by a call alone, and then waits for the state that it brings and for the
steps that come back. So the question here carries an object both ways.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.env.env_runner_group import EnvRunnerGroup

_PAYLOAD = bytes(256 * 1024)
"""More than Ray sends within a call, which is 100 kB."""


def _echo(_: Any, payload: bytes) -> bytes:
    return payload


class AnsweringActors:
    """Asks actors out of service one question each, again and again until `forget`. Of the main thread."""

    def __init__(self, group: EnvRunnerGroup) -> None:
        """Begin without a question."""
        self._group = group
        self._asked: dict[int, Any] = {}
        self._payload: Any = None

    def among(self, indices: Iterable[int]) -> set[int]:
        """Return those of some actors whose answer has arrived; the others are asked if they are not asked yet."""
        import ray

        self._asked = {index: self._asked.get(index) or self._question(index) for index in indices}
        if not self._asked:
            return set()
        there = ray.wait(list(self._asked.values()), num_returns=len(self._asked), timeout=0.0, fetch_local=True)[0]
        answered = {index for index, question in self._asked.items() if question in there}
        for index in [index for index in answered if not _is_answer(self._asked[index])]:
            answered.discard(index)
            del self._asked[index]  # it is asked anew by the next call
        return answered

    def forget(self, indices: Iterable[int]) -> None:
        """Forget what these actors answered: they have been brought back, or could not be."""
        for index in indices:
            self._asked.pop(index, None)

    def _question(self, index: int) -> Any:
        import ray

        if self._payload is None:
            self._payload = ray.put(_PAYLOAD)
        return self._group._worker_manager._actors[index].apply.remote(_echo, self._payload)


def _is_answer(question: Any) -> bool:
    import ray

    try:
        ray.get(question)
    except Exception:  # whatever Ray raises of an actor that is not there
        return False
    return True
