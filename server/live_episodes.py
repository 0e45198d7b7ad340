"""Open episodes as RLlib's own env runner keeps them: `SingleAgentEpisode`s that grow by a step and can be taken back to before it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

Array = npt.NDArray[Any]


@dataclass(slots=True)
class PendingStep:
    """A step whose action was given out and whose reward has not come yet."""

    action: Any
    """In the RLModule's form."""
    outputs: dict[str, Any]
    """What else RLlib's runner stores with the step, by column name."""


@dataclass(slots=True, eq=False)
class LiveEpisode:
    """An open episode."""

    episode: SingleAgentEpisode
    """Its newest chunk."""
    index: int
    """The place that its sub-environment would have in RLlib's vector of environments."""
    pending: PendingStep | None = None
    """The step that is answered and not completed."""
    chunks: list[SingleAgentEpisode] = field(default_factory=list)
    """The chunks before the newest one, as far as a callback asks for them."""


class Savepoint:
    """How an episode was before a step was added to it.

    A step only adds to the ends of the episode's lists, so these are cut back to their lengths; what a connector did to older entries, or
    to the values inside of `custom_data`, stays.
    """

    __slots__ = ("_buffers", "_episode", "_values")

    def __init__(self, episode: SingleAgentEpisode) -> None:
        """Note how an episode is now."""
        self._episode = episode
        self._values = {name: getattr(episode, name) for name in SingleAgentEpisode.__slots__}
        self._values["extra_model_outputs"] = dict(episode.extra_model_outputs)
        self._values["_custom_data"] = dict(episode.custom_data)
        buffers = (episode.observations, episode.infos, episode.actions, episode.rewards, *episode.extra_model_outputs.values())
        self._buffers = [(buffer, dict(vars(buffer)), len(buffer.data)) for buffer in buffers]

    def restore(self) -> None:
        """Bring the episode back to how it was."""
        for name, value in self._values.items():
            setattr(self._episode, name, value)
        for buffer, attributes, length in self._buffers:
            vars(buffer).update(attributes)
            del buffer.data[length:]


class EpisodeNumbers:
    """Give every open episode the lowest free number, as RLlib's `env_index` is one."""

    def __init__(self) -> None:
        self._free: set[int] = set()
        self._next = 0

    def candidates(self) -> itertools.chain[int]:
        """Return an iterator of free numbers, which are free until they are taken."""
        return itertools.chain(sorted(self._free), itertools.count(self._next))

    def take(self, number: int) -> None:
        """Take a free number."""
        if number >= self._next:
            self._free.update(range(self._next, number))
            self._next = number + 1
        self._free.discard(number)

    def give(self, number: int) -> None:
        """Give a number back."""
        self._free.add(number)
