"""What the learner wants of one serving actor."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Demand:
    """How many steps the learner takes at a time, and in which form."""

    fragment_steps: int = 4000
    """Steps of one `sample()`: RLlib's rollout fragment, with PPO and one serving actor a train batch."""
    on_policy: bool = True
    """Whether each batch is to come from one policy version, all of it: then everything that is recorded is handed off at once,
    after a wait for the steps that clients are making, and nothing is left for the next batch. Else all hand-offs together have as many
    steps as were asked for, because updates are counted by them."""
    whole_episodes: bool = False
    """Whether episodes are handed off when they have ended, RLlib's `batch_mode="complete_episodes"`."""
    learns: bool = True
    """Whether there is a learner. Without one no step is recorded, and no question waits."""
    batches_ahead: float = 0.0
    """Fragments that clients may play while the learner is busy with the one before."""
    most_fragment_steps: int = 0
    """What `fragment_steps` may come to when serving actors go and the others share their part. 0: what it is."""

    def within(self, most_steps: int | None) -> Demand:
        """Return what of it can be had where no more than `most_steps` wait at once."""
        if most_steps is None:
            return self
        fragment_steps = min(self.fragment_steps, most_steps)
        ahead = min(self.batches_ahead, most_steps / fragment_steps)
        most = min(self.most_fragment_steps, most_steps)
        return replace(self, fragment_steps=fragment_steps, batches_ahead=ahead, most_fragment_steps=most)

    @property
    def capacity_steps(self) -> int:
        """Steps for which there has to be room: a fragment, and those that are played ahead."""
        return math.ceil(1.0 + self.batches_ahead) * self.fragment_steps

    @property
    def most_capacity_steps(self) -> int:
        """What `capacity_steps` may come to."""
        return math.ceil(1.0 + self.batches_ahead) * max(self.fragment_steps, self.most_fragment_steps)
