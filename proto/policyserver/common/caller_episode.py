"""One episode as the asking side knows it: the number, reward and info of its next row, and the row that is not answered yet.

The client of a stream keeps one for each of its episodes; the server keeps one for each episode of unary calls or of an ExternalEnv.
Nothing here waits, locks or looks at a row's content.

    next row     take()     it carries all that was logged; it is now in flight
    in flight    answered() the server applied it and its caller has the answer: the next row's turn
                 recorded() the server applied it, but its caller has no answer: it stays in flight
                 refused()  the server changed nothing: what the row carried goes with another
                 retake()   the caller asks again, or says which action it took instead
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from policyserver.common.flags import StepFlag
from policyserver.common.rewards import add_reward

Row = TypeVar("Row")

_START, _UNTRAINED = int(StepFlag.START), int(StepFlag.TRAINING_DISABLED)
_GIVEN, _OVERRIDE, _END = int(StepFlag.ACTION_GIVEN), int(StepFlag.OVERRIDE), int(StepFlag.END)


class CallerEpisode(Generic[Row]):
    """The state of one open episode between its caller and the server. Its owner says who may touch it, and when."""

    __slots__ = (
        "handle", "in_flight", "info", "is_recorded", "overrides", "reward", "sent_info", "sent_kind", "sent_reward", "sequence",
        "start_flags"
    )  # fmt: skip

    def __init__(self, training_enabled: bool) -> None:
        """Begin before the first row."""
        self.start_flags = _START if training_enabled else _START | _UNTRAINED
        """What the first row says beside its kind."""
        self.handle = 0
        """The server's name for the episode; 0 until the first row is answered."""
        self.sequence = 0
        """Number of the next row, which is how many rows the server is known to have applied."""
        self.reward = 0.0
        """Rewards logged that no row carries yet."""
        self.info: Any = None
        """The newest info that no row carries yet, in the caller's form; false without one."""
        self.in_flight: Row | None = None
        """The newest row, as its owner keeps it, while its caller has no answer to it."""
        self.is_recorded = False
        """Whether the server is known to have applied the row in flight."""
        self.overrides = 0
        """How often the caller said that it took another action, which the server may have received: then it can't ask again."""
        self.sent_kind = 0
        """Bits of ACTION_GIVEN, TERMINATED and TRUNCATED of the newest row."""
        self.sent_reward = 0.0
        """The reward that the newest row carries."""
        self.sent_info: Any = None
        """The info that the row in flight carries."""

    def log(self, reward: float, info: Any) -> bool:
        """Add to the reward of the newest action. A later info replaces an earlier one of the same step.

        Args:
            reward: a finite number.
            info: false without one.

        Returns:
            Whether there was an action yet. If not, nothing was changed: the owner counts the reward or refuses it.

        Raises:
            InvalidInputError: a step cannot carry the sum; nothing was changed.
        """
        comes_back = 0.0
        if self.in_flight is None:
            if self.sequence == 0:
                return False
        elif not self.is_recorded:
            comes_back = self.sent_reward
        self.reward = add_reward(self.reward, reward, comes_back)
        if info:
            self.info = info
        return True

    @property
    def training_enabled(self) -> bool:
        """Whether the policy learns from the episode."""
        return self.start_flags == _START

    @property
    def reward_in_flight(self) -> float:
        """The reward that comes back if the row in flight is refused; 0 without such a row."""
        return self.sent_reward if self.in_flight is not None and not self.is_recorded else 0.0

    def take(self, kind: int, row: Row | None = None) -> int:
        """Let the next row carry what was logged.

        Args:
            kind: bits of ACTION_GIVEN, TERMINATED and TRUNCATED.
            row: what is in flight now; None if the owner says so itself, once it has made the row.

        Returns:
            The row's flags. Its number is `sequence`, and it carries `sent_reward` and `sent_info`.
        """
        self.sent_kind, self.sent_reward, self.sent_info = kind, self.reward, self.info
        self.reward, self.info = 0.0, None
        self.in_flight, self.is_recorded, self.overrides = row, False, 0
        return kind | self.start_flags if self.sequence == 0 else kind

    def retake(self, kind: int, *, same_observation: bool, same_action: bool) -> int | None:
        """Let the newest row go out again as it was, or with the action that its caller took instead of an answer.

        Args:
            kind: as of `take`.
            same_observation: whether the call brings the newest row's observation.
            same_action: whether it brings the same action, or none as that row did.

        Returns:
            The row's flags, or None if the call is another one. Its number is `newest`.
        """
        if not same_observation:
            return None
        start = self.start_flags if self.newest == 0 else 0
        if kind == self.sent_kind and same_action and not self.overrides:
            return kind | start
        if kind != _GIVEN or self.sent_kind & _END:
            return None
        self.overrides += 1
        return kind | start | _OVERRIDE

    @property
    def newest(self) -> int:
        """Number of the newest row that `take` gave out; -1 before the first."""
        return self.sequence if self.in_flight is not None and not self.is_recorded else self.sequence - 1

    def answered(self, handle: int) -> None:
        """Take note that the server applied the row in flight, and that its caller has the answer."""
        self.handle = handle
        if not self.is_recorded:
            self.sequence += 1
        self.in_flight, self.is_recorded, self.sent_info = None, False, None

    def recorded(self, handle: int) -> None:
        """Take note that the server applied the row in flight, but that its caller has no answer."""
        self.handle = handle
        if not self.is_recorded:
            self.sequence += 1
        self.is_recorded = True

    def refused(self, flags: int) -> float:
        """Take note that the server refused a row with these flags.

        A row that may have been applied before, or that an override was to replace, stays in flight.

        Returns:
            Rewards that belong to no action any more, because the first row was refused and had been followed by some: the owner counts
            them. 0 otherwise.
        """
        if flags & _OVERRIDE:
            self.overrides -= 1
            return 0.0
        if self.in_flight is None or self.is_recorded:
            return 0.0
        self.in_flight = None
        if self.sequence == 0:
            dropped, self.reward, self.info = self.reward, 0.0, None
            return dropped
        self.reward += self.sent_reward
        self.info = self.info or self.sent_info
        return 0.0


def belongs_to_no_action(episode_id: object, reward: float) -> str:
    """Say in the log that a reward was dropped."""
    return f"episode {episode_id}: reward {reward:g} before the first action belongs to no action: dropped"
