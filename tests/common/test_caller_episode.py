"""A caller's episode: whatever is lost, refused or repeated on the way, each reward and info reaches the server once, in one step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from policyserver.common.caller_episode import CallerEpisode
from policyserver.common.errors import InvalidInputError
from policyserver.common.flags import StepFlag

ASK, GIVEN, END = 0, int(StepFlag.ACTION_GIVEN), int(StepFlag.TERMINATED)
START, OVERRIDE = int(StepFlag.START), int(StepFlag.OVERRIDE)


@dataclass
class Row:
    """What a caller keeps of a row: here its content."""

    number: int
    observation: int
    action: int | None
    flags: int = 0
    reward: float = 0.0
    info: str = ""


@dataclass
class Server:
    """What the protocol promises of the server: a number is applied once, and its repeat changes nothing but an overridden action."""

    applied: list[Row] = field(default_factory=list)

    def receive(self, row: Row) -> str:
        if row.number == len(self.applied):
            self.applied.append(replace(row))
            return "applied"
        if row.number != len(self.applied) - 1:
            return "gap"
        known = self.applied[-1]
        if row.flags & OVERRIDE and row.observation == known.observation:
            known.action = row.action
            return "applied"
        same = (row.observation, row.reward, row.info, row.flags) == (known.observation, known.reward, known.info, known.flags)
        return "applied" if same else "conflict"


class Conversation(RuleBasedStateMachine):
    """A caller that does anything, a network that loses anything, and a server that keeps the protocol."""

    @initialize(training=st.booleans())
    def begin(self, training: bool) -> None:
        self.episode: CallerEpisode[Row] = CallerEpisode(training)
        self.server = Server()
        self.logged: list[float] = []
        self.infos: set[str] = set()
        self.observation = 0

    @rule(reward=st.integers(1, 1000), with_info=st.booleans())
    def log(self, reward: int, with_info: bool) -> None:
        info = f"info {len(self.logged)}" if with_info else ""
        if self.episode.log(float(reward), info):
            self.logged.append(float(reward))

    def send(self, row: Row, flags: int) -> None:
        episode = self.episode
        row.flags, row.reward, row.info = flags, episode.sent_reward, episode.sent_info or ""

    @precondition(lambda self: self.episode.in_flight is None or self.episode.is_recorded)
    @rule(kind=st.sampled_from([ASK, GIVEN]), fate=st.sampled_from(["answered", "recorded", "lost", "lost before", "refused"]))
    def next_step(self, kind: int, fate: str) -> None:
        self.observation += 1
        row = Row(self.episode.sequence, self.observation, 1 if kind == GIVEN else None)
        self.send(row, self.episode.take(kind, row))
        self.meet(row, fate)

    @precondition(lambda self: self.episode.in_flight is not None)
    @rule(kind=st.sampled_from([ASK, GIVEN]), action=st.integers(1, 3), fate=st.sampled_from(["answered", "recorded", "lost", "refused"]))
    def again(self, kind: int, action: int, fate: str) -> None:
        row = self.episode.in_flight
        assert row is not None
        given = action if kind == GIVEN else None
        flags = self.episode.retake(kind, same_observation=True, same_action=given == row.action)
        if flags is None:
            assert kind == ASK
            assert self.episode.sent_kind == GIVEN or self.episode.overrides, "a question cannot replace a given action"
            return
        repeated = Row(self.episode.newest, row.observation, given)
        self.send(repeated, flags)
        self.meet(repeated, fate)

    @precondition(lambda self: self.episode.in_flight is not None)
    @rule()
    def another_call(self) -> None:
        assert self.episode.retake(ASK, same_observation=False, same_action=True) is None
        assert self.episode.retake(END, same_observation=True, same_action=True) is None

    def meet(self, row: Row, fate: str) -> None:
        """Let a row's way end somewhere."""
        may_refuse = row.number == len(self.server.applied)
        if fate == "lost before":
            return
        if fate == "refused" and may_refuse:
            dropped = self.episode.refused(row.flags)
            if dropped:
                assert not self.server.applied, "only before the first action"
                assert dropped == sum(self.logged)
                self.logged.clear()
            return
        assert self.server.receive(row) == "applied"
        assert fate != "answered" or row.flags & OVERRIDE == 0 or self.server.applied[-1].action == row.action
        if fate == "answered":
            self.episode.answered(7)
        elif fate == "recorded":
            self.episode.recorded(7)

    @invariant()
    def every_reward_is_in_one_place(self) -> None:
        episode, applied = self.episode, self.server.applied
        unknown = episode.in_flight is not None and not episode.is_recorded
        is_applied = unknown and len(applied) > episode.sequence
        waiting = episode.reward + (episode.sent_reward if unknown and not is_applied else 0.0)
        assert sum(row.reward for row in applied) + waiting == sum(self.logged)
        assert episode.sequence + is_applied == len(applied)

    @invariant()
    def rows_are_numbered_and_only_the_first_begins(self) -> None:
        applied = self.server.applied
        assert [row.number for row in applied] == list(range(len(applied)))
        assert [bool(row.flags & START) for row in applied] == [number == 0 for number in range(len(applied))]
        assert all(row.reward == 0.0 for row in applied[:1]), "no action came before the first row"


Conversation.TestCase.settings = settings(max_examples=4 * settings().max_examples, stateful_step_count=30)
TestConversation = pytest.mark.long(Conversation.TestCase)


def test_a_reward_before_the_first_row_is_the_owners_to_judge() -> None:
    episode: CallerEpisode[int] = CallerEpisode(True)
    assert not episode.log(3.0, "info")
    assert (episode.reward, episode.info) == (0.0, None)
    assert episode.take(ASK, 1) == START
    assert episode.log(4.0, "info"), "there is an action, though nobody knows it yet"
    assert (episode.reward, episode.info, episode.reward_in_flight) == (4.0, "info", 0.0)


def test_the_newest_info_of_a_step_travels_and_comes_back_unless_a_newer_one_was_logged() -> None:
    episode: CallerEpisode[int] = CallerEpisode(True)
    episode.take(ASK, 1)
    episode.answered(7)
    episode.log(1.0, "first")
    episode.log(1.0, "second")
    episode.log(1.0, None)
    episode.take(ASK, 2)
    assert (episode.sent_reward, episode.sent_info, episode.info) == (3.0, "second", None)
    episode.refused(0)
    assert (episode.reward, episode.info) == (3.0, "second")
    episode.take(ASK, 3)
    episode.log(1.0, "third")
    episode.refused(0)
    assert (episode.reward, episode.info, episode.sequence, episode.handle) == (4.0, "third", 1, 7)


def test_rewards_that_followed_a_first_row_that_is_refused_belong_to_no_action() -> None:
    episode: CallerEpisode[int] = CallerEpisode(True)
    episode.take(ASK, 1)
    episode.log(2.0, "info")
    assert episode.refused(START) == 2.0
    assert (episode.take(ASK, 2), episode.sent_reward, episode.sent_info) == (START, 0.0, None)


def test_a_sum_counts_what_may_come_back() -> None:
    episode: CallerEpisode[int] = CallerEpisode(True)
    episode.take(ASK, 1)
    episode.answered(7)
    episode.log(3e38, None)
    episode.take(ASK, 2)
    with pytest.raises(InvalidInputError, match="on its way"):
        episode.log(1e38, None)
    episode.recorded(7)
    episode.log(1e38, None)  # it will not come back
    assert episode.reward == 1e38


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_row_that_may_have_been_applied_stays_in_flight_when_its_repeat_is_refused(is_recorded: bool) -> None:
    episode: CallerEpisode[int] = CallerEpisode(False)
    assert episode.take(ASK, 1) == START | StepFlag.TRAINING_DISABLED
    if is_recorded:
        episode.recorded(7)
    flags = episode.retake(GIVEN, same_observation=True, same_action=False)
    assert flags == START | StepFlag.TRAINING_DISABLED | GIVEN | OVERRIDE
    episode.refused(flags)
    assert (episode.in_flight, episode.newest) == (1, 0)
    episode.answered(7)
    assert (episode.in_flight, episode.sequence, episode.newest) == (None, 1, 0)
