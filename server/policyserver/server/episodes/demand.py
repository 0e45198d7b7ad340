"""What the learner wants of one serving actor."""

from __future__ import annotations

from dataclasses import dataclass


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
