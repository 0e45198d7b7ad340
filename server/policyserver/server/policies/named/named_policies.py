"""The policy that learns together with others that don't: the rows of a pass are computed group by group, and committed as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.common.acting.keyed_draws import draw_key
from policyserver.common.errors import PolicyUnknownError, ServerOverloadedError
from policyserver.common.server_stats import PolicyFigures
from policyserver.server.policies.named.shadow import Shadow
from policyserver.server.policies.policy import LIVE, LIVE_NAME, Array, Choice, Mask, ModuleOutputs, StepResult, StepRows, scattered
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy

START_NAME = "live@start"
"""What episodes name that keep the version of the policy with which they begin."""


@dataclass(slots=True, eq=False)
class NamedPolicy:
    """One policy that doesn't learn."""

    number: int
    name: str
    policy: VectorizedPolicy
    open: int = 0
    """Its open episodes."""
    is_dropped: bool = False
    """Whether it is there for these alone."""


@dataclass(slots=True)
class _Group:
    """The rows of one policy in a pass, and what it decided."""

    number: int
    places: npt.NDArray[np.int64]
    asking: npt.NDArray[np.int64]
    """Places of those that ask among all that ask."""
    rows: StepRows
    decided: StepResult


class NamedPolicies:
    """See the `Policy` protocol. Owned by the loop thread.

    A policy that is dropped, and a version that is no longer served, stay until their open episodes have ended.
    """

    decides_again = True

    def __init__(
        self, live: VectorizedPolicy, *, most_versions: int = 4, shares: Mapping[str, float] | None = None, shadow: str | None = None
    ) -> None:
        """Begin with the policy that learns.

        Args:
            live: The policy that learns.
            most_versions: How many versions of it are held for episodes that are pinned to theirs.
            shares: Shares of the episodes that name no policy, by name; they add up to 1.
            shadow: Name of a policy that is asked what the one that learns is asked.
        """
        self.live = live
        self.layout, self.initial_state = live.layout, live.initial_state
        self._most_versions = most_versions
        self._shares = list(shares or {})
        self._up_to = np.cumsum(list((shares or {}).values()))
        self.shadow = Shadow(shadow, list(live.initial_state)) if shadow is not None else None
        self._others: dict[int, NamedPolicy] = {}
        self._of_slot: dict[int, NamedPolicy] = {}
        """Of the open episodes that the policy which learns does not decide."""
        self._numbers = LIVE
        self._pinned: NamedPolicy | None = None
        """The version that is served now, for the episodes that keep it."""

    @property
    def weights_seq_no(self) -> int:
        """Policy version served now, of the policy that learns."""
        return self.live.weights_seq_no

    # Which there are -----------------------------------------------------------------------------------------------------------------

    def loaded(self) -> list[NamedPolicy]:
        """Return the policies that were added and not dropped, oldest first."""
        return [other for other in self._others.values() if other.name != START_NAME and not other.is_dropped]

    def add(self, name: str, policy: VectorizedPolicy) -> None:
        """Hold a policy under a name, in place of another one of that name."""
        self.drop(name)
        self._add(name, policy)

    def drop(self, name: str) -> bool:
        """Begin no new episodes with a policy; return whether there was one of that name."""
        for other in self.loaded():
            if other.name == name:
                other.is_dropped = True
                self._forget_unused(other)
                return True
        return False

    def choose(self, name: str, episode_id: str, *, greedy: bool) -> Choice:
        """Choose what decides an episode.

        Raises:
            PolicyUnknownError: There is no policy of that name.
            ServerOverloadedError: Episodes hold as many versions of the policy as they may.
        """
        if not name and self._shares:
            name = self._share_of(episode_id)
        if name in ("", LIVE_NAME):
            return self.live.choose(name, episode_id, greedy=greedy)
        other = self._version_now() if name == START_NAME else next((other for other in self.loaded() if other.name == name), None)
        if other is None:
            there = ", ".join([LIVE_NAME, START_NAME, *(other.name for other in self.loaded())])
            raise PolicyUnknownError(f"policy: expected one of {there}, received {name!r}", field="policy")
        trains = self.live.replays and not self.live.has_statistics
        return Choice(other.number, other.name, greedy, trains)

    def _share_of(self, episode_id: str) -> str:
        """Return whose an episode is that names no policy."""
        number = int(np.searchsorted(self._up_to, draw_key(episode_id) / 2**64, side="right"))
        name = self._shares[min(number, len(self._shares) - 1)]
        return name if name == START_NAME or any(other.name == name for other in self.loaded()) else LIVE_NAME

    def _add(self, name: str, policy: VectorizedPolicy) -> NamedPolicy:
        self._numbers += 1
        other = self._others[self._numbers] = NamedPolicy(self._numbers, name, policy)
        return other

    def _version_now(self) -> NamedPolicy:
        """Return the version that is served now, as a policy that stays."""
        if self._pinned is None:
            held = sum(other.name == START_NAME for other in self._others.values())
            if held >= self._most_versions:
                raise ServerOverloadedError(
                    f"policy: expected {START_NAME} episodes of at most {self._most_versions} versions at once (policies.most_versions), "
                    f"received one of version {self.weights_seq_no} while as many older ones are held; end their episodes, or try later",
                    reason="TOO_MANY_VERSIONS",
                )
            self._pinned = self._add(START_NAME, self.live.frozen_now())
        return self._pinned

    def _forget_unused(self, other: NamedPolicy) -> None:
        if not other.open and other is not self._pinned and (other.is_dropped or other.name == START_NAME):
            del self._others[other.number]

    # The protocol --------------------------------------------------------------------------------------------------------------------

    def decide(self, rows: StepRows) -> StepResult:
        """Choose actions. If it raises, nothing has changed."""
        decided = self.live.decide(rows) if rows.policies is None else self._decide_apart(rows, rows.policies)
        if self.shadow is not None:
            for other in self._others.values():
                if other.name == self.shadow.name and not other.is_dropped:
                    self.shadow.decide(other.number, other.policy, rows, decided)
        return decided

    def _decide_apart(self, rows: StepRows, policies: npt.NDArray[np.int32]) -> StepResult:
        """Let each policy decide its rows."""
        asks = ~rows.ends
        rank = np.cumsum(asks) - 1
        groups = []
        for number in np.unique(policies).tolist():
            places = np.flatnonzero(policies == number)
            part = rows.of_one_policy(places)
            policy = self.live if number == LIVE else self._others[number].policy
            groups.append(_Group(number, places, rank[places[asks[places]]], part, policy.decide(part)))
        return _joined(groups)

    def decide_again(self, rows: StepRows) -> StepResult:
        """Choose the actions of pending steps anew, all of the policy that learns."""
        return self.live.decide_again(rows)

    def commit(self, rows: StepRows, decided: StepResult, kept: Mask) -> None:
        """Let the policy that learns take over what it prepared, and count the episodes of the others."""
        if self.shadow is not None:
            self.shadow.commit(rows, kept)
        if rows.policies is None:
            self.live.commit(rows, decided, kept)
            return
        for group in decided.pending:
            if group.number == LIVE:
                self.live.commit(group.rows, group.decided, kept[group.places])
        for place in np.flatnonzero((rows.policies != LIVE) & kept & (rows.is_new != rows.ends)).tolist():
            slot = int(rows.slots[place])
            if rows.ends[place]:
                self._leave(slot)
            else:
                other = self._of_slot[slot] = self._others[int(rows.policies[place])]
                other.open += 1

    def note_answers(self, slots: npt.NDArray[np.int64], executed: Array) -> None:
        """Tell the shadow what was sent to questions that had waited."""
        if self.shadow is not None:
            self.shadow.note_answers(slots, executed)

    def override(self, slot: int, outputs: Mapping[str, Array], action: Array) -> tuple[Array, npt.NDArray[np.float32] | None]:
        """Return an executed action in the net's form and its log-probability: what was recorded says how it was distributed."""
        return self.live.override(slot, outputs, action)

    def forget(self, slots: list[int]) -> None:
        """Note that episodes were reaped."""
        for slot in slots:
            self._leave(slot)

    def shadow_figures(self) -> list[PolicyFigures]:
        """Return what is known of the shadow."""
        return self.shadow.figures() if self.shadow is not None else []

    def load_spare(self, state_dict: Mapping[str, Any]) -> None:
        """Load weights of the policy that learns. Called from another thread than everything else."""
        self.live.load_spare(state_dict)

    def swap(self, weights_seq_no: int) -> None:
        """Serve the weights loaded last; the version before stays for the episodes that keep it."""
        self.live.swap(weights_seq_no)
        pinned, self._pinned = self._pinned, None
        if pinned is not None:
            self._forget_unused(pinned)

    def count_steps(self, steps_sampled_lifetime: int) -> None:
        """Take the number of steps sampled by all env runners."""
        self.live.count_steps(steps_sampled_lifetime)

    def take_metrics(self) -> dict[str, Any]:
        """Return what connectors and callbacks logged."""
        return self.live.take_metrics()

    def _leave(self, slot: int) -> None:
        if (other := self._of_slot.pop(slot, None)) is not None:
            other.open -= 1
            self._forget_unused(other)


def _joined(groups: list[_Group]) -> StepResult:
    """Put what several policies decided together, in the order of the rows."""
    places, asking, parts = [group.places for group in groups], [group.asking for group in groups], [group.decided for group in groups]
    return StepResult(
        observations=[scattered(places, leaf) for leaf in zip(*(part.observations for part in parts), strict=True)],
        rewards=scattered(places, [part.rewards for part in parts]),
        decisions=ModuleOutputs.joined(asking, [part.decisions for part in parts]),
        executed=scattered(asking, [part.executed for part in parts]),
        state_in=[scattered(asking, leaf) for leaf in zip(*(part.state_in for part in parts), strict=True)],
        state=[scattered(asking, leaf) for leaf in zip(*(part.state for part in parts), strict=True)],
        infos={int(group.places[place]): info for group in groups for place, info in group.decided.infos.items()},
        pending=groups,
    )
