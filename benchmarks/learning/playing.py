"""How long to play, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Playing:
    """How long to play, and with how many copies of the environment at a time."""

    copies: int = 8
    """Episodes open at once, stepped together with one `get_actions`."""
    seed: int = 0
    """Seed of the copies."""
    window: int = 50
    """Newest episodes that the mean return is taken over."""
    stop_return: float = float("inf")
    """Mean return at which to stop, once `window` episodes have ended."""
    stop_episode_return: float = float("inf")
    """Return of a single episode at which to stop."""
    max_steps: int = 1_000_000
    """Steps after which to stop, whatever was reached."""
    max_episodes: int = 1_000_000
    """Episodes after which to stop."""
    max_seconds: float = 3600.0
    """Seconds after which to stop."""
    step_seconds: float = 0.0
    """Least length of a step of all copies, for an environment that runs in real time."""
    threads: bool = False
    """Whether each copy has a thread of its own, instead of all being stepped together."""

    def is_over(self, played: Played, ended: int) -> bool:
        """Tell whether a limit is reached, with so many episodes in the mean."""
        return (
            (ended == self.window and played.mean_return >= self.stop_return)
            or played.best_return >= self.stop_episode_return
            or played.steps >= self.max_steps
            or played.episodes >= self.max_episodes
            or played.seconds >= self.max_seconds
        )


@dataclass
class Played:
    """What came of it."""

    steps: int = 0
    """Environment steps of all copies."""
    episodes: int = 0
    """Episodes that ended."""
    seconds: float = 0.0
    """From the first step to the last."""
    mean_return: float = float("nan")
    """Mean return of the newest `window` episodes."""
    best_return: float = float("-inf")
    """Best return of a single episode."""
    policy_version: int = 0
    """Version that gave the newest action."""
    policy_versions: int = 0
    """Different versions that gave actions."""
