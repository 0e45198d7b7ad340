"""An episode's session: whatever is lost, refused or repeated on the way, each reward and info reaches the server once, in one step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from policyserver.common.episode_session import EpisodeSession
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
        self.session: EpisodeSession[Row] = EpisodeSession(training)
        self.server = Server()
        self.logged: list[float] = []
        self.infos: set[str] = set()
        self.observation = 0

    @rule(reward=st.integers(1, 1000), with_info=st.booleans())
    def log(self, reward: int, with_info: bool) -> None:
        info = f"info {len(self.logged)}" if with_info else ""
        if self.session.log(float(reward), info):
            self.logged.append(float(reward))

    def send(self, row: Row, flags: int) -> None:
        session = self.session
        row.flags, row.reward, row.info = flags, session.sent_reward, session.sent_info or ""

    @precondition(lambda self: self.session.in_flight is None or self.session.is_recorded)
    @rule(kind=st.sampled_from([ASK, GIVEN]), fate=st.sampled_from(["answered", "recorded", "lost", "lost before", "refused"]))
    def next_step(self, kind: int, fate: str) -> None:
        self.observation += 1
        row = Row(self.session.sequence, self.observation, 1 if kind == GIVEN else None)
        self.send(row, self.session.take(kind, row))
        self.meet(row, fate)

    @precondition(lambda self: self.session.in_flight is not None)
    @rule(kind=st.sampled_from([ASK, GIVEN]), action=st.integers(1, 3), fate=st.sampled_from(["answered", "recorded", "lost", "refused"]))
    def again(self, kind: int, action: int, fate: str) -> None:
        row = self.session.in_flight
        assert row is not None
        given = action if kind == GIVEN else None
        flags = self.session.retake(kind, same_observation=True, same_action=given == row.action)
        if flags is None:
            assert kind == ASK
            assert self.session.sent_kind == GIVEN or self.session.overrides, "a question cannot replace a given action"
            return
        repeated = Row(self.session.newest, row.observation, given)
        self.send(repeated, flags)
        self.meet(repeated, fate)

    @precondition(lambda self: self.session.in_flight is not None)
    @rule()
    def another_call(self) -> None:
        assert self.session.retake(ASK, same_observation=False, same_action=True) is None
        assert self.session.retake(END, same_observation=True, same_action=True) is None

    def meet(self, row: Row, fate: str) -> None:
        """Let a row's way end somewhere."""
        may_refuse = row.number == len(self.server.applied)
        if fate == "lost before":
            return
        if fate == "refused" and may_refuse:
            dropped = self.session.refused(row.flags)
            if dropped:
                assert not self.server.applied, "only before the first action"
                assert dropped == sum(self.logged)
                self.logged.clear()
            return
        assert self.server.receive(row) == "applied"
        assert fate != "answered" or row.flags & OVERRIDE == 0 or self.server.applied[-1].action == row.action
        if fate == "answered":
            self.session.answered(7)
        elif fate == "recorded":
            self.session.recorded(7)

    @invariant()
    def every_reward_is_in_one_place(self) -> None:
        session, applied = self.session, self.server.applied
        unknown = session.in_flight is not None and not session.is_recorded
        is_applied = unknown and len(applied) > session.sequence
        waiting = session.reward + (session.sent_reward if unknown and not is_applied else 0.0)
        assert sum(row.reward for row in applied) + waiting == sum(self.logged)
        assert session.sequence + is_applied == len(applied)

    @invariant()
    def rows_are_numbered_and_only_the_first_begins(self) -> None:
        applied = self.server.applied
        assert [row.number for row in applied] == list(range(len(applied)))
        assert [bool(row.flags & START) for row in applied] == [number == 0 for number in range(len(applied))]
        assert all(row.reward == 0.0 for row in applied[:1]), "no action came before the first row"


Conversation.TestCase.settings = settings(max_examples=4 * settings().max_examples, stateful_step_count=30)
TestConversation = Conversation.TestCase


def test_a_reward_before_the_first_row_is_the_owners_to_judge() -> None:
    session: EpisodeSession[int] = EpisodeSession(True)
    assert not session.log(3.0, "info")
    assert (session.reward, session.info) == (0.0, None)
    assert session.take(ASK, 1) == START
    assert session.log(4.0, "info"), "there is an action, though nobody knows it yet"
    assert (session.reward, session.info, session.reward_in_flight) == (4.0, "info", 0.0)


def test_the_newest_info_of_a_step_travels_and_comes_back_unless_a_newer_one_was_logged() -> None:
    session: EpisodeSession[int] = EpisodeSession(True)
    session.take(ASK, 1)
    session.answered(7)
    session.log(1.0, "first")
    session.log(1.0, "second")
    session.log(1.0, None)
    session.take(ASK, 2)
    assert (session.sent_reward, session.sent_info, session.info) == (3.0, "second", None)
    session.refused(0)
    assert (session.reward, session.info) == (3.0, "second")
    session.take(ASK, 3)
    session.log(1.0, "third")
    session.refused(0)
    assert (session.reward, session.info, session.sequence, session.handle) == (4.0, "third", 1, 7)


def test_rewards_that_followed_a_first_row_that_is_refused_belong_to_no_action() -> None:
    session: EpisodeSession[int] = EpisodeSession(True)
    session.take(ASK, 1)
    session.log(2.0, "info")
    assert session.refused(START) == 2.0
    assert (session.take(ASK, 2), session.sent_reward, session.sent_info) == (START, 0.0, None)


def test_a_sum_counts_what_may_come_back() -> None:
    session: EpisodeSession[int] = EpisodeSession(True)
    session.take(ASK, 1)
    session.answered(7)
    session.log(3e38, None)
    session.take(ASK, 2)
    with pytest.raises(InvalidInputError, match="on its way"):
        session.log(1e38, None)
    session.recorded(7)
    session.log(1e38, None)  # it will not come back
    assert session.reward == 1e38


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_row_that_may_have_been_applied_stays_in_flight_when_its_repeat_is_refused(is_recorded: bool) -> None:
    session: EpisodeSession[int] = EpisodeSession(False)
    assert session.take(ASK, 1) == START | StepFlag.TRAINING_DISABLED
    if is_recorded:
        session.recorded(7)
    flags = session.retake(GIVEN, same_observation=True, same_action=False)
    assert flags == START | StepFlag.TRAINING_DISABLED | GIVEN | OVERRIDE
    session.refused(flags)
    assert (session.in_flight, session.newest) == (1, 0)
    session.answered(7)
    assert (session.in_flight, session.sequence, session.newest) == (None, 1, 0)
