"""Open episodes as RLlib's own env runner keeps them: `SingleAgentEpisode`s that grow by a step and can be taken back to before it."""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass, field
from typing import Any

from ray.rllib.env.single_agent_episode import SingleAgentEpisode


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


_EPISODE_VALUES = tuple(name for name in SingleAgentEpisode.__slots__ if name not in ("extra_model_outputs", "_custom_data"))
_BUFFER_VALUES = ("data", "lookback", "finalized", "_space", "_space_struct")
_values_of_episode, _values_of_buffer = operator.attrgetter(*_EPISODE_VALUES), operator.attrgetter(*_BUFFER_VALUES)


class Savepoint:
    """How an episode was before a step was added to it.

    A step only adds to the ends of the episode's lists, so these are cut back to their lengths; what a connector did to older entries, or
    to the values inside of `custom_data`, stays.
    """

    __slots__ = ("_buffers", "_custom_data", "_episode", "_outputs", "_values")

    def __init__(self, episode: SingleAgentEpisode) -> None:
        """Note how an episode is now."""
        self._episode = episode
        self._values = _values_of_episode(episode)
        self._outputs, self._custom_data = dict(episode.extra_model_outputs), dict(episode.custom_data)
        buffers = (episode.observations, episode.infos, episode.actions, episode.rewards, *self._outputs.values())
        self._buffers = [(buffer, len(buffer.data), _values_of_buffer(buffer)) for buffer in buffers]

    def restore(self) -> None:
        """Bring the episode back to how it was."""
        episode = self._episode
        for name, value in zip(_EPISODE_VALUES, self._values, strict=True):
            setattr(episode, name, value)
        episode.extra_model_outputs, episode._custom_data = self._outputs, self._custom_data
        for buffer, length, values in self._buffers:
            for name, value in zip(_BUFFER_VALUES, values, strict=True):
                setattr(buffer, name, value)
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
