"""A learner of one batch at a time gets what RLlib's own runner would give it, and whoever can wait is told when to ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policyserver.common.errors import ServerUnavailableError
from policyserver.common.flags import StepFlag
from policyserver.server.config.serving_config import EpisodesConfig, HandOffConfig
from policyserver.server.episodes import sample_requests
from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.segments import SegmentBlock, episodes_of
from tests.server.core_harness import (
    Answer,
    CoreHarness,
    Row,
    learner_batch,
    learner_of,
    module_of,
    module_of_learner,
    observation,
    policy_of,
    start,
)

Make = Callable[..., CoreHarness]
WANTED = 200
ON_POLICY = Demand(fragment_steps=WANTED)


class Learner:
    """Takes batches and serves new weights after each, as RLlib's loop of sample, update and sync does."""

    def __init__(self, harness: CoreHarness, want_steps: int = WANTED) -> None:
        self.harness = harness
        self.want_steps = want_steps
        self.version = 0
        self.batches: list[list[SegmentBlock]] = []
        self._asks = False

    def ask(self) -> None:
        self._asks = True
        self.harness.on_loop(lambda: self.harness.core.sample(self.want_steps, 3600.0, self._take))

    def _take(self, blocks: list[SegmentBlock]) -> None:
        self._asks = False
        self.batches.append(blocks)

    @property
    def is_busy(self) -> bool:
        return not self._asks

    def learn(self) -> None:
        """Update: serve a new version, and ask for the next batch."""
        self.version += 1
        self.harness.on_loop(lambda: self.harness.core.serve_weights(self.version))
        self.ask()


class Players:
    """Episodes of different lengths, played in a random order; whose question waits repeats it when there is room."""

    def __init__(self, harness: CoreHarness, count: int, seed: int, at_once: int, longest: int = 40) -> None:
        self.harness = harness
        self.random = np.random.default_rng(seed)
        self.rows: list[Row | None] = [None] * count
        self.left = [0] * count
        self.at_once = at_once
        self.longest = longest
        self.begun = 0
        self.waits = [False] * count

    def play(self, turns: int) -> None:
        for _ in range(turns):
            if self.harness.core.room.is_open:
                self.waits = [False] * len(self.waits)
            able = [index for index, waits in enumerate(self.waits) if not waits]
            if not able:
                return
            chosen = self.random.permutation(able)[: self.at_once].tolist()
            self.step(chosen)

    def step(self, chosen: list[int]) -> None:
        rows = [self.rows[index] or self.first(index) for index in chosen]
        for index, row, answer in zip(chosen, rows, self.harness.send(*rows), strict=True):
            self.rows[index] = row
            if answer.error is not None:
                assert answer.error.reason == "LEARNER_BEHIND"
                self.waits[index] = True
            else:
                self.rows[index] = self.next(index, row, answer)

    def first(self, index: int) -> Row:
        self.begun += 1
        self.left[index] = int(self.random.integers(1, self.longest))
        return start(f"{self.begun}", observation(self.begun % 90, 0))

    def next(self, index: int, row: Row, answer: Answer) -> Row | None:
        if row.flags & StepFlag.END:
            return None
        self.left[index] -= 1
        flags = StepFlag.TERMINATED if self.left[index] == 0 else StepFlag.NONE
        return Row(answer.handle, row.sequence + 1, flags, 1.0, observation(float(row.observation[0]), row.sequence + 1))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, the last steps of a batch are waited for."""
    monkeypatch.setattr(sample_requests, "_QUIET_S", 3600.0)
    monkeypatch.setattr(sample_requests, "_LAST_STEPS_WAIT_S", 3600.0)


@pytest.mark.parametrize(
    ("model", "at_once", "segment_steps"), [("mlp", 1, 64), ("mlp", 5, 4), ("mlp", 16, 64), ("lstm_shared", 5, 64), ("lstm_shared", 16, 4)]
)
@pytest.mark.long
def test_a_batch_has_the_wanted_steps_one_version_and_one_cut_for_each_open_episode(
    make_harness: Make, model: str, at_once: int, segment_steps: int, patient: None
) -> None:
    count = 16
    harness = make_harness(
        policy_of(module_of_learner(model)), demand=ON_POLICY, hand_off=HandOffConfig(segment_steps=segment_steps, room_wait_s=3600.0)
    )
    learner, players = Learner(harness), Players(harness, count, at_once, at_once)
    learner.ask()
    steps = 0
    for version in range(3):
        players.play(10_000)  # until all wait
        harness.settle()
        assert learner.is_busy
        assert harness.core.snapshot().questions_waiting == count
        blocks = learner.batches[version]
        steps_here = sum(block.steps for block in blocks)
        assert WANTED <= steps_here <= WANTED + count
        steps += steps_here
        episodes = episodes_of(blocks)
        assert sum(not episode.is_done for episode in episodes) <= count, "one cut for each open episode"
        versions = {int(version) for episode in episodes for version in np.asarray(episode.get_extra_model_outputs("weights_seq_no"))}
        assert versions == {version}
        learner.learn()
    statistics = harness.core.snapshot()
    assert statistics.steps_dropped == 0
    assert statistics.steps_completed == statistics.steps_handed_off + statistics.steps_waiting
    assert statistics.questions_waited >= 3 * count - count
    assert statistics.learner_wait_s > 0


@pytest.mark.long
def test_what_the_learner_gets_of_a_recurrent_net_has_the_states_it_was_played_with(make_harness: Make, patient: None) -> None:
    """Cut anywhere: the learner's batch begins each sequence with the state that acted."""
    model = "lstm_shared"
    module = module_of_learner(model)
    harness = make_harness(policy_of(module), demand=ON_POLICY, hand_off=HandOffConfig(segment_steps=10, room_wait_s=3600.0))
    learner, players = Learner(harness), Players(harness, 7, 3, 7, longest=60)
    learner.ask()
    said: dict[tuple[int, int], Any] = {}
    for version in range(4):
        players.play(10_000)
        harness.settle()
        for episode in episodes_of(learner.batches[version]):
            states = episode.get_extra_model_outputs("state_out")
            batch = learner_batch(learner_of(model), [episode])
            first = int(episode.t_started)
            number = int(episode.get_observations(0)[0])
            if first:
                assert batch["state_in"]["h"][0].abs().sum() > 0, "an episode that goes on begins with the state it had"
            said[number, first] = states
        learner.learn()
    assert said


@pytest.mark.long
def test_a_question_that_waited_is_answered_by_the_new_weights(make_harness: Make) -> None:
    policy = policy_of(module_of(), explore=False)
    harness = make_harness(policy, demand=Demand(fragment_steps=2), hand_off=HandOffConfig(room_wait_s=3600.0))
    learner = Learner(harness, 2)
    learner.ask()
    handle = harness.one(start("a", observation(1))).handle
    harness.one(Row(handle, 1, 0, 1.0, observation(2)))
    waiting = Row(handle, 2, 0, 1.0, observation(3))
    assert harness.refusal(waiting).reason == "LEARNER_BEHIND"
    harness.settle()
    assert [block.steps for block in learner.batches[0]] == [2], "its step is recorded all the same"
    assert harness.refusal(waiting).reason == "LEARNER_BEHIND", "a repeat does not wait: it is told the same"
    policy.load_spare(module_of_learner("mlp").state_dict())
    learner.learn()
    answer = harness.one(waiting)
    assert answer.weights_seq_no == 1
    again = harness.one(waiting)
    assert (again.action, again.log_prob, again.weights_seq_no) == (answer.action, answer.log_prob, 1)
    reference = make_harness(policy_of(module_of_learner("mlp"), explore=False))
    expected = reference.one(start("b", observation(3)))
    assert answer.log_prob == pytest.approx(expected.log_prob, abs=1e-6)
    harness.one(Row(handle, 3, StepFlag.TERMINATED, 1.0, observation(4)))
    (segment,) = harness.segments()
    assert segment.get_actions().tolist() == [answer.action]
    assert segment.get_extra_model_outputs("action_logp").tolist() == pytest.approx([answer.log_prob])
    assert harness.core.snapshot().reward_sum == 3.0


def closed(make_harness: Make, **options: Any) -> tuple[CoreHarness, list[int]]:
    """Make a core without room, and three open episodes with the number 1 to come."""
    demand = Demand(fragment_steps=4)
    harness = make_harness(demand=demand, hand_off=HandOffConfig(room_wait_s=50.0), **options)
    handles = [answer.handle for answer in harness.send(start("a"), start("b"), start("c"))]
    harness.play("full", 4, flags=StepFlag.NO_WAIT)
    assert not harness.core.room.is_open
    return harness, handles


def test_ends_given_actions_untrained_episodes_and_who_says_so_never_wait(make_harness: Make) -> None:
    harness, (one, two, three) = closed(make_harness)
    untrained = start("d", flags=StepFlag.TRAINING_DISABLED)
    answers = harness.send(
        Row(one, 1, StepFlag.TERMINATED, 1.0),
        Row(two, 1, StepFlag.ACTION_GIVEN, 1.0, action=1),
        Row(three, 1, StepFlag.NO_WAIT, 1.0),
        untrained,
        start("e"),
    )
    assert [answer.error and answer.error.reason for answer in answers] == [None, None, None, None, "LEARNER_BEHIND"]
    assert harness.core.snapshot().rows_refused == 0, "to wait is not to be refused"


def test_a_waiting_question_may_be_answered_by_the_client_itself_or_given_up(make_harness: Make) -> None:
    harness, (one, two, three) = closed(make_harness)
    for handle in (one, two, three):
        assert harness.refusal(Row(handle, 1, 0, 1.0)).reason == "LEARNER_BEHIND"
    harness.one(Row(one, 1, StepFlag.ACTION_GIVEN | StepFlag.OVERRIDE, 1.0, action=2))
    harness.one(Row(two, 1, StepFlag.NO_WAIT, 1.0))
    harness.core.reap(harness.client, ["c"])
    assert harness.core.snapshot().questions_waiting == 0
    segments = harness.segments()
    assert sum(len(segment) for segment in segments) == 4 + 1, "the others' steps are still in their pages"


@pytest.mark.parametrize("how", ["weights", "sample", "drain", "time"])
def test_who_waits_is_told_when_there_is_room(make_harness: Make, how: str, caplog: pytest.LogCaptureFixture) -> None:
    harness, (one, _, _) = closed(make_harness)
    harness.refusal(Row(one, 1, 0, 1.0))
    told: list[str] = []
    harness.on_loop(lambda: harness.core.room.when_open(lambda: told.append("room")))
    assert not told
    if how == "time":
        with caplog.at_level(logging.WARNING):
            harness.advance(51.0)
        assert "hand_off.room_wait_s" in caplog.text
    elif how == "drain":
        harness.on_loop(harness.core.drain)
    else:
        blocks: list[SegmentBlock] = []
        harness.on_loop(lambda: harness.core.sample(4, 3600.0, blocks.extend))
        harness.advance(0.06)
        assert not told, "the learner has its batch and no new weights are served"
        if how == "weights":
            harness.on_loop(lambda: harness.core.serve_weights(1))
        else:
            harness.on_loop(lambda: harness.core.sample(4, 3600.0, blocks.extend))
    assert told == ["room"]
    harness.one(Row(one, 1, 0, 1.0))


def test_clients_may_play_as_many_batches_ahead_as_they_are_let(make_harness: Make) -> None:
    harness = make_harness(demand=Demand(fragment_steps=10, batches_ahead=1.0), hand_off=HandOffConfig(room_wait_s=3600.0))
    learner, players = Learner(harness, 10), Players(harness, 4, 0, 4)
    learner.ask()
    players.play(1000)
    assert len(learner.batches) == 1
    waiting = harness.core.snapshot().steps_waiting
    assert 10 <= waiting <= 14, "a batch more than the learner has"
    learner.learn()
    harness.settle()
    assert len(learner.batches) == 2, "which is there when it asks"


def held_each_time(make_harness: Make, model: str, how: str, num_frames: int = 1) -> tuple[CoreHarness, list[float]]:
    """Play an episode whose every question waits once, and return what its answers say."""
    policy = policy_of(module_of_learner(model), explore=False, num_frames=num_frames)
    # A batch of one step: there is no room once it is recorded.
    harness = make_harness(policy, demand=Demand(fragment_steps=1), hand_off=HandOffConfig(room_wait_s=10.0))
    log_probs, handle = [], 0
    harness.play("full", 1, flags=StepFlag.NO_WAIT)
    for step in range(6):
        row = Row(handle, step, 0, float(step > 0), observation(0.3 * step, 1.0 - 0.1 * step), episode_id="a")
        row.flags |= StepFlag.START if step == 0 else 0
        (answer,) = harness.send(row)
        assert answer.error is not None
        assert answer.error.reason == "LEARNER_BEHIND"
        if how == "override":
            row.flags, row.action = row.flags | StepFlag.ACTION_GIVEN | StepFlag.OVERRIDE, 1
        elif how == "no wait":
            row.flags |= StepFlag.NO_WAIT
        else:
            harness.on_loop(lambda: harness.core.room.when_open(lambda: None))
            harness.advance(11.0)  # nobody comes
        answer = harness.one(row)
        if how == "time":
            harness.on_loop(lambda: harness.core.room.close(0))
        handle = answer.handle
        log_probs.append(answer.log_prob)
    return harness, log_probs


@pytest.mark.long
@pytest.mark.parametrize("how", ["no wait", "override", "time"])
def test_a_recurrent_state_goes_on_whoever_ends_the_wait(make_harness: Make, how: str) -> None:
    """Also with the weights that decided the question first."""
    _, log_probs = held_each_time(make_harness, "lstm_shared", how)
    plain = make_harness(policy_of(module_of_learner("lstm_shared"), explore=False))
    handle, expected = 0, []
    for step in range(6):
        row = Row(handle, step, 0, float(step > 0), observation(0.3 * step, 1.0 - 0.1 * step), episode_id="a")
        row.flags |= StepFlag.START if step == 0 else 0
        if how == "override":
            row.flags, row.action = row.flags | StepFlag.ACTION_GIVEN, 1
        answer = plain.one(row)
        handle = answer.handle
        expected.append(answer.log_prob)
    assert log_probs == pytest.approx(expected, abs=1e-5)


def test_a_message_that_repeats_a_waiting_question_several_times_is_counted_once(make_harness: Make) -> None:
    harness, _ = closed(make_harness)
    waiting = start("d", observation(5))
    assert harness.refusal(waiting).reason == "LEARNER_BEHIND"
    other = start("e", observation(6))
    assert harness.refusal(other).reason == "LEARNER_BEHIND"
    waiting.flags |= StepFlag.NO_WAIT
    answers = harness.send(waiting, waiting, waiting)
    assert len({answer.handle for answer in answers}) == 1
    assert [answer.error for answer in answers] == [None] * 3
    assert harness.core.snapshot().questions_waiting == 1
    withheld = harness.core._withheld
    assert withheld.awaited == int(withheld._is_awaited.sum())
    assert harness.refusal(other).reason == "LEARNER_BEHIND", "it still waits"


def test_steps_that_nobody_brings_are_waited_for_no_longer_than_a_sample(make_harness: Make, patient: None) -> None:
    harness = make_harness(demand=Demand(fragment_steps=4), hand_off=HandOffConfig(room_wait_s=3600.0))
    harness.one(start("idle"))
    got: list[list[SegmentBlock]] = []
    handle = harness.one(start("hurried", flags=StepFlag.NO_WAIT)).handle
    harness.on_loop(lambda: harness.core.sample(4, 30.0, got.append))
    for step in range(1, 6):
        harness.one(Row(handle, step, StepFlag.NO_WAIT, 1.0))
    assert got == []
    harness.advance(31.0)
    assert [sum(block.steps for block in blocks) for blocks in got] == [5]


@pytest.mark.long
def test_whole_episodes_that_end_together_are_all_handed_off(make_harness: Make) -> None:
    demand = Demand(fragment_steps=200, whole_episodes=True)
    harness = make_harness(demand=demand, hand_off=HandOffConfig(room_wait_s=3600.0), episodes=EpisodesConfig(max_open=100))
    got: list[SegmentBlock] = []
    harness.on_loop(lambda: harness.core.sample(200, 3600.0, got.extend))
    handles = [answer.handle for answer in harness.send(*(start(f"{number}") for number in range(100)))]
    for step in range(1, 151):
        flags = StepFlag.TERMINATED if step == 150 else StepFlag.NONE
        harness.send(*(Row(handle, step, flags, 1.0) for handle in handles))
    for _ in range(20):
        harness.settle()
    assert harness.core.snapshot().steps_dropped == 0
    assert sum(block.steps for block in got) == 100 * 150


def test_no_more_may_be_played_ahead_than_may_wait(make_harness: Make) -> None:
    hand_off = HandOffConfig(capacity_steps=100, segment_steps=8, room_wait_s=3600.0)
    harness = make_harness(demand=Demand(fragment_steps=50, batches_ahead=3.0), hand_off=hand_off)
    Players(harness, 4, 0, 4).play(1000)
    statistics = harness.core.snapshot()
    assert (statistics.steps_dropped, statistics.questions_waiting) == (0, 4)


# No deadlock -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_hundred_episodes_with_most_of_a_page_each_are_a_batch(make_harness: Make) -> None:
    harness = make_harness(demand=Demand(fragment_steps=63 * 100), hand_off=HandOffConfig(room_wait_s=3600.0))
    learner = Learner(harness, 63 * 100)
    learner.ask()
    handles = [answer.handle for answer in harness.send(*(start(f"{number}") for number in range(100)))]
    for step in range(1, 64):
        answers = harness.send(*(Row(handle, step, 0, 1.0) for handle in handles))
    assert all(answer.error is not None for answer in answers), "the batch is complete, and everybody waits"
    harness.settle()
    assert sum(block.steps for block in learner.batches[0]) == 63 * 100


@pytest.mark.long
def test_whole_episodes_are_waited_for_with_the_room_open(make_harness: Make) -> None:
    demand = replace(ON_POLICY, whole_episodes=True)
    harness = make_harness(demand=demand, hand_off=HandOffConfig(room_wait_s=3600.0))
    learner, players = Learner(harness), Players(harness, 8, 1, 3)
    for version in range(3):
        learner.ask()
        while len(learner.batches) <= version:
            players.play(1)
            harness.advance(0.06)
        episodes = episodes_of(learner.batches[version])
        assert all(episode.is_done and episode.t_started == 0 for episode in episodes)
        assert sum(map(len, episodes)) >= WANTED
        learner.learn()


@pytest.mark.long
def test_a_client_that_sleeps_holds_up_nobody(make_harness: Make) -> None:
    harness = make_harness(demand=ON_POLICY, hand_off=HandOffConfig(room_wait_s=3600.0))
    harness.send(*(start(f"sleeper-{number}") for number in range(50)), client=harness.connect("sleeper"))
    learner, players = Learner(harness), Players(harness, 4, 2, 4)
    learner.ask()
    for version in range(2):
        players.play(1000)
        harness.advance(0.06)
        harness.settle()
        assert len(learner.batches) == version + 1
        learner.learn()


@pytest.mark.long
def test_a_client_in_real_time_leaves_room_for_those_who_wait(make_harness: Make) -> None:
    harness = make_harness(demand=ON_POLICY, hand_off=HandOffConfig(room_wait_s=3600.0))
    hurried = harness.one(start("hurried", flags=StepFlag.NO_WAIT)).handle
    learner, players = Learner(harness), Players(harness, 4, 2, 4)
    sequence = 0
    learner.ask()
    for version in range(2):
        for _ in range(3 * WANTED):  # more than the learner takes, before the others have a turn
            sequence += 1
            harness.one(Row(hurried, sequence, StepFlag.NO_WAIT, 1.0))
        begun = harness.core.snapshot().actions
        players.play(10)
        assert harness.core.snapshot().actions >= begun + 30, version
        harness.advance(0.06)
        learner.learn()


@pytest.mark.long
def test_one_thread_with_more_episodes_than_the_learner_wants_steps_goes_on(make_harness: Make) -> None:
    """Its open pages hold the steps that are missing, and it plays one episode after the other."""
    harness = make_harness(
        demand=Demand(fragment_steps=32), hand_off=HandOffConfig(room_wait_s=3600.0), episodes=EpisodesConfig(max_open=64)
    )
    learner, players = Learner(harness, 32), Players(harness, 64, 4, 1, longest=200)
    learner.ask()
    for version in range(8):
        players.play(200)
        harness.advance(0.06)
        harness.settle()
        assert len(learner.batches) > version
        learner.learn()


def test_at_the_end_of_the_process_questions_that_wait_are_answered(make_harness: Make) -> None:
    harness, (one, two, _) = closed(make_harness)
    harness.refusal(Row(one, 1))
    future: asyncio.Future[Any] = harness.post(Row(two, 1))
    harness.core.fail_all(ServerUnavailableError("over", reason="SHUTTING_DOWN"))
    assert future.done()


# What learns from a replay buffer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segment_steps", [1, 7, 64])
@pytest.mark.parametrize("carried", [0, 2])
@pytest.mark.slow
def test_hand_offs_are_as_long_as_asked_for_on_the_average(make_harness: Make, segment_steps: int, carried: int) -> None:
    """An algorithm with a replay buffer makes a fixed number of updates for each hand-off, whatever is in it."""
    policy = policy_of(module_of(), state_every=1)
    policy.layout = replace(policy.layout, carried=carried)
    demand = Demand(fragment_steps=32, on_policy=False, batches_ahead=1.0)
    harness = make_harness(policy, demand=demand, hand_off=HandOffConfig(segment_steps=segment_steps, room_wait_s=3600.0))
    learner, players = Learner(harness, 32), Players(harness, 16, 5, 16, longest=100)
    while sum(block.steps for blocks in learner.batches for block in blocks) < 5_000:
        if learner.is_busy:
            learner.learn()
        players.play(1)
    steps = sum(block.steps for blocks in learner.batches for block in blocks)
    assert steps / (32 * len(learner.batches)) == pytest.approx(1.0, abs=0.02)
    if carried:
        shortest = min(int(block.lengths[~(block.terminated | block.truncated)].min(initial=99)) for b in learner.batches for block in b)
        assert shortest > carried, "long enough for a return of that many steps"
