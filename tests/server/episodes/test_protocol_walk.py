"""Random walks through the protocol against a model of its semantics, which fits on a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig
from tests.server.core_harness import Answer, CoreHarness, Row, module_of, observation, policy_of, start
from tests.server.episode_player import by_episode

MAX_OPEN = 4
VALUES = st.integers(-50, 50)
EPISODES = st.integers(0, 5)


@dataclass
class ModelEpisode:
    """What the protocol says of one episode."""

    number: int
    handle: int
    rows: list[Row] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    ended: bool = False


class Walk(RuleBasedStateMachine):
    """Sends good, repeated and bad rows of a few episodes; the model says what must come back."""

    @initialize()
    def begin(self) -> None:
        self.harness = CoreHarness(
            policy_of(module_of()),
            episodes=EpisodesConfig(max_open=MAX_OPEN),
            hand_off=HandOffConfig(segment_steps=3, capacity_steps=10_000),
        )
        self.episodes: dict[int, ModelEpisode] = {}
        self.segments: list[Any] = []

    def send(self, row: Row, reason: str = "") -> Answer:
        (answer,) = self.harness.send(row)
        assert (answer.error.reason if answer.error else "") == reason
        return answer

    def apply(self, episode: ModelEpisode, row: Row) -> None:
        answer = self.send(row)
        episode.rows.append(row)
        episode.answers.append(answer)
        episode.ended = bool(row.flags & StepFlag.END)
        if not episode.ended:
            episode.actions.append(int(answer.action))

    @rule(number=EPISODES, value=VALUES)
    def start(self, number: int, value: int) -> None:
        row = start(f"{number}", observation(number, value))
        known = self.episodes.get(number)
        if known is not None:
            first = known.rows[0]
            same = len(known.rows) == 1 and np.array_equal(first.observation, row.observation)
            self.send(row, "" if same else "EPISODE_FINISHED" if known.ended else "EPISODE_DUPLICATE")
        elif sum(not episode.ended for episode in self.episodes.values()) == MAX_OPEN:
            self.send(row, "TOO_MANY_EPISODES")
        else:
            episode = self.episodes[number] = ModelEpisode(number, 0)
            self.apply(episode, row)
            episode.handle = episode.answers[0].handle

    @rule(number=EPISODES, value=VALUES, reward=VALUES, kind=st.sampled_from(["ask", "ask", "ask", "give", "terminate", "truncate"]))
    def step(self, number: int, value: int, reward: int, kind: str) -> None:
        if (episode := self.episodes.get(number)) is None:
            self.send(Row(0xFFFF, 1), "EPISODE_UNKNOWN")
            return
        flags = {"give": StepFlag.ACTION_GIVEN, "terminate": StepFlag.TERMINATED, "truncate": StepFlag.TRUNCATED}.get(kind, StepFlag.NONE)
        row = Row(episode.handle, len(episode.rows), flags, reward / 8, observation(number, value), abs(value) % 3)
        if episode.ended:
            self.send(row, "EPISODE_FINISHED")
        else:
            self.apply(episode, row)

    @rule(number=EPISODES)
    def repeat(self, number: int) -> None:
        if (episode := self.episodes.get(number)) is not None:
            again = self.send(episode.rows[-1])
            last = episode.answers[-1]
            assert again.handle == last.handle
            assert episode.ended or (again.action, again.log_prob) == (last.action, last.log_prob)

    @rule(number=EPISODES, offset=st.sampled_from([-3, -2, -1, 1, 2]))
    def out_of_order(self, number: int, offset: int) -> None:
        episode = self.episodes.get(number)
        if episode is None or (sequence := len(episode.rows) + offset) < 0:
            return
        reason = "EPISODE_FINISHED" if episode.ended else "SEQUENCE_CONFLICT" if offset == -1 else "SEQUENCE_GAP"
        self.send(Row(episode.handle, sequence, reward=1e6, observation=observation(number)), reason)

    @rule(number=EPISODES, bad=st.sampled_from(["observation", "reward", "action"]))
    def spoil(self, number: int, bad: str) -> None:
        episode = self.episodes.get(number)
        if episode is None or episode.ended:
            return
        row = Row(episode.handle, len(episode.rows), StepFlag.ACTION_GIVEN, 1.0, observation(number), 1)
        row.observation = observation(float("nan")) if bad == "observation" else row.observation
        row.reward = float("inf") if bad == "reward" else row.reward
        row.action = 3 if bad == "action" else row.action
        self.send(row, f"BAD_{bad.upper()}")

    @rule(number=EPISODES, action=st.integers(0, 2))
    def override(self, number: int, action: int) -> None:
        episode = self.episodes.get(number)
        if episode is None or episode.ended:
            return
        last = episode.rows[-1]
        flags = StepFlag.ACTION_GIVEN | StepFlag.OVERRIDE | (last.flags & StepFlag.START)
        row = Row(last.handle, last.sequence, flags, last.reward, last.observation, action, last.episode_id)
        episode.answers[-1] = self.send(row)
        episode.actions[-1] = action
        assert episode.answers[-1].action == action

    @rule()
    def collect(self) -> None:
        self.segments += self.harness.segments()

    @invariant()
    def counters_are_those_of_the_model(self) -> None:
        statistics = self.harness.core.snapshot()
        episodes = self.episodes.values()
        assert statistics.episodes_open == sum(not episode.ended for episode in episodes)
        assert statistics.steps_completed == sum(len(episode.rows) - 1 for episode in episodes)
        assert statistics.reward_sum == sum(row.reward for episode in episodes for row in episode.rows)

    def teardown(self) -> None:
        if not hasattr(self, "harness"):
            return
        for episode in self.episodes.values():
            if not episode.ended:
                self.apply(episode, Row(episode.handle, len(episode.rows), StepFlag.TERMINATED, 0.5, observation(episode.number)))
        self.collect()
        arrived = by_episode(self.segments)
        for episode in self.episodes.values():
            parts = arrived.pop(episode.number, [])
            assert [float(reward) for part in parts for reward in part.get_rewards()] == [row.reward for row in episode.rows[1:]]
            assert [int(action) for part in parts for action in part.get_actions()] == episode.actions
            assert [bool(part.is_terminated) for part in parts][-1:] == [bool(episode.rows[-1].flags & StepFlag.TERMINATED)] * bool(parts)
        assert not arrived
        self.harness.close()


@pytest.mark.long
@pytest.mark.timeout(600)  # with the many examples of `make test-slow`
@pytest.mark.hypothesis
def test_whatever_clients_send_in_whatever_order_the_server_does_what_the_model_says() -> None:
    run_state_machine_as_test(Walk, settings=settings(stateful_step_count=40))
