"""What a load takes of each part of a server, and which part is the first that can't."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.scaling.measured import Measured

MOST_BUSY = 0.7
"""Share of a core that a process may have busy for long: beyond it waiting times grow faster than the load."""
MOST_OPEN = 100_000
"""Open episodes of one serving actor, by default (`episodes.max_open`)."""
_US = 1e-6


@dataclass(frozen=True, slots=True)
class Load:
    """What clients ask for."""

    episodes_open: int
    actions_per_s: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What a load takes."""

    actors: int
    """Serving actors, each with a core of its own."""
    client_cores: float
    driver_busy: float
    """Share of the driver's core that it takes to fetch every step."""
    learner_busy: float
    """Share of one learner's core that it takes to train on every step."""
    learner_gpu_busy: float
    """The same of one GPU."""
    episodes_bytes: float
    first_limit: str
    """The part that is busiest beyond its bound, if every step is trained on; empty: none is."""
    first_limit_of_acting: str
    """The same if the learner leaves out steps, as it does where it may (`hand_off`), and all of them are fetched."""


def needs(load: Load, measured: Measured) -> Needs:
    """Calculate what a load takes.

    Raises:
        ValueError: The load is negative.
    """
    if load.episodes_open < 0 or load.actions_per_s < 0:
        raise ValueError(f"load: expected numbers of 0 or more, received {load}")
    rate = load.actions_per_s * _US
    actors = max(1, math.ceil(rate * measured.serving_us / MOST_BUSY), math.ceil(load.episodes_open / MOST_OPEN))
    driver, learner, gpu = (rate * each for each in (measured.hand_off_us, measured.learner_us, measured.learner_gpu_us))
    acting = {"the driver": driver / MOST_BUSY}
    return Needs(
        actors=actors,
        client_cores=rate * measured.client_us / MOST_BUSY,
        driver_busy=driver,
        learner_busy=learner,
        learner_gpu_busy=gpu,
        episodes_bytes=load.episodes_open * measured.episode_bytes,
        first_limit=_beyond({"the learner": learner / MOST_BUSY, **acting}),
        first_limit_of_acting=_beyond(acting),
    )


def ceilings(measured: Measured) -> dict[str, float]:
    """Return at how many actions a second each part that is there once reaches its bound."""
    bound = MOST_BUSY / _US
    return {
        "one learner on a CPU, with every step": bound / measured.learner_us,
        "one serving actor, callers with one episode each": bound / measured.serving_lone_us,
        "one learner on a GPU, with every step": bound / measured.learner_gpu_us,
        "one client process": bound / measured.client_us,
        "one serving actor, callers with many episodes": bound / measured.serving_us,
        "the driver, through which PPO, DQN and SAC fetch their steps": bound / measured.hand_off_us,
    }


def _beyond(busy: dict[str, float]) -> str:
    part = max(busy, key=lambda name: busy[name])
    return part if busy[part] > 1.0 else ""
