"""Plays interleaved random episodes against an episode core and keeps a ledger of what was said."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policyserver.common.flags import StepFlag
from tests.server.core_harness import Array, CoreHarness, Row, observation


@dataclass
class Played:
    """What client and server said about one episode."""

    number: int
    length: int
    terminated: bool
    handle: int = 0
    observations: list[Array] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def next_row(self, random: np.random.Generator, given_share: float) -> Row:
        """Make the next row; the observation begins with the episode's number and the step's."""
        step = len(self.observations)
        values = observation(self.number, step)
        values[2:] = random.normal(size=8)
        self.observations.append(values)
        row = Row(self.handle, step, observation=values)
        if step == 0:
            row.flags, row.episode_id = StepFlag.START, f"episode-{self.number}"
        else:
            row.reward = float(np.float32(random.normal()))
            self.rewards.append(row.reward)
        if step == self.length:
            row.flags |= StepFlag.TERMINATED if self.terminated else StepFlag.TRUNCATED
        elif random.random() < given_share:
            row.flags |= StepFlag.ACTION_GIVEN
            row.action = int(random.integers(3))
        return row


def play(
    harness: CoreHarness,
    random: np.random.Generator,
    *,
    episodes: int,
    longest: int,
    given_share: float = 0.0,
    swap_weights: bool = False,
    joined: bool = False,
) -> tuple[list[Played], list[SingleAgentEpisode]]:
    """Play episodes in random order and collect now and then; return the ledger and what arrived at the learner."""
    everyone = [Played(n, int(random.integers(1, longest + 1)), bool(random.random() < 0.5)) for n in range(episodes)]
    running, segments = list(everyone), []
    take = harness.segments if joined else harness.segments_apart
    while running:
        chosen = [running[index] for index in random.permutation(len(running))[: int(random.integers(1, len(running) + 1))]]
        cut = int(random.integers(0, len(chosen) + 1))
        rows = [episode.next_row(random, given_share) for episode in chosen]
        answers = [answer for part in harness.send_messages(*filter(None, (rows[:cut], rows[cut:]))) for answer in part]
        for episode, row, answer in zip(chosen, rows, answers, strict=True):
            assert answer.error is None, answer.error
            episode.handle = answer.handle
            if not row.flags & StepFlag.END:
                episode.actions.append(int(answer.action))
                episode.log_probs.append(answer.log_prob)
                episode.versions.append(answer.weights_seq_no)
        running = [episode for episode in running if len(episode.observations) <= episode.length]
        if random.random() < 0.1:
            segments += take()
        if swap_weights and random.random() < 0.1:
            harness.policy.swap(harness.policy.weights_seq_no + 1)
    return everyone, segments + take()


def by_episode(segments: list[SingleAgentEpisode]) -> dict[int, list[SingleAgentEpisode]]:
    """Sort segments by the episodes they are of."""
    sorted_: dict[int, list[SingleAgentEpisode]] = defaultdict(list)
    for segment in sorted(segments, key=lambda segment: int(segment.t_started)):
        sorted_[int(segment.get_observations(0)[0])].append(segment)
    return sorted_


def reference_states(module: Any, episode: Played) -> list[Any]:
    """Run RLlib's module over an episode one step at a time; return the recurrent state before each step and after the last."""
    state = tree.map_structure(lambda leaf: torch.as_tensor(leaf)[None], dict(module.get_initial_state()))
    states = [state]
    for values in episode.observations[:-1]:
        batch = {Columns.OBS: torch.from_numpy(values)[None, None], Columns.STATE_IN: state}
        with torch.inference_mode():
            state = module._forward_inference(batch)[Columns.STATE_OUT]
        states.append(state)
    return [tree.map_structure(lambda leaf: leaf[0].numpy(), state) for state in states]
