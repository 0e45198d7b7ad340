"""Which episodes are open, whose they are, and what their newest step was."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.common.errors import EpisodeFinishedError
from policyserver.common.server_stats import named_figures
from policyserver.common.spaces import Array
from policyserver.server.episodes.by_hand import ByHand, HandCounts
from policyserver.server.episodes.lazy_array import LazyArray, LazyTable
from policyserver.server.episodes.masks import all_true
from policyserver.server.policies.policy import LIVE, LIVE_NAME, Choice, ModuleOutputs

_GENERATION_SHIFT = np.uint64(32)
_SLOT_MASK = np.uint64(0xFFFF_FFFF)
_LIVE = Choice()


@dataclass(slots=True, eq=False)
class ServedClient:
    """A client, to whom episodes belong."""

    client_id: str
    """The name it gave itself in the handshake."""
    index: int
    """Its number in the table."""
    connection: str
    """What its newest stream or call came over. Each connection has a share of the server."""
    streams: int = 0
    """Its open streams, more than one only during a reconnect; of a unary caller, its episodes."""
    records_in: tuple[str, ...] = ()
    """Where it records its episodes itself, as its handshake said."""
    announced: int = 0
    """Episodes that a unary caller has started and whose first observation has not come."""
    aliases: dict[str, int] = field(default_factory=dict)
    """Slots of its open episodes by the client's own ids."""
    counts: HandCounts = field(default_factory=HandCounts)
    """Its actions, and those that it chose itself."""


@dataclass(frozen=True, slots=True)
class FinishedEpisode:
    """What is remembered of an episode that ended."""

    client_id: str
    episode_id: str
    handle: int
    sequence: int
    content: int
    """Hash of its last row."""
    idle: bool
    """Whether the server ended it because its client was gone."""

    def error(self) -> EpisodeFinishedError:
        """Make the error for a call that goes on with the episode."""
        if self.idle:
            message = f"Episode {self.episode_id} was ended by the server: its client was gone for too long. Start a new episode."
            return EpisodeFinishedError(message, reason="EPISODE_IDLE")
        return EpisodeFinishedError(f"Episode {self.episode_id} has already completed.")


class EpisodeTable:
    """Keep the open episodes by slot, as columns. Owned by the loop thread.

    A handle packs a slot and its generation, which changes with each episode the slot holds, so that a stale handle is recognised.
    """

    def __init__(self, max_open: int, remembered: int, state: list[Array], action: tuple[tuple[int, ...], np.dtype[Any]]) -> None:
        self.max_open = max_open
        self._remembered = remembered
        self._slots = LazyTable(max_open)
        column = self._slots.column
        # Not a column of these, which forget: a generation must never repeat.
        self._generation = LazyArray(max_open, (), np.uint32).array
        self._client_index = column(np.int32)
        self.next_sequence = column(np.int64)
        self.content = column(np.uint64)
        """Hash of the newest row."""
        self.draw_keys = column(np.uint64)
        """What the actions are drawn by."""
        self.training = column(np.bool_)
        self.policies = column(np.int32)
        """Numbers of the policies that decide."""
        self.greedy = column(np.bool_)
        """Whether the most likely actions are taken."""
        self.unlike_most = 0
        """Open episodes that are greedy, or that another policy decides than the one that learns."""
        self.actions = column(action[1], action[0])
        """The newest action, in the client's form."""
        self.log_probs = column(np.float32)
        self.weights_seq_nos = column(np.uint64)
        self.returns = column(np.float64)
        self.started_s = column(np.float64)
        self.given = column(np.int32)
        """Actions that the client chose itself."""
        self.overridden = column(np.int32)
        """Times that it chose another action than the one that it was answered."""
        self.given_at = column(np.int64)
        """The next sequence number after the newest of these."""
        self.state = [column(leaf.dtype, leaf.shape) for leaf in state]
        """Recurrent state after the newest step, leaf by leaf."""
        self._initial_state = state
        self.by_hand = ByHand()
        self._policy_names: dict[int, str] = {}
        """Of the episodes that another policy decides, by slot."""
        self._ids: dict[int, str] = {}
        self._clients: dict[str, ServedClient] = {}
        self._clients_by_index: dict[int, ServedClient] = {}
        self._client_numbers = 0
        self._finished: OrderedDict[int, FinishedEpisode] = OrderedDict()
        self._finished_by_id: dict[tuple[str, str], FinishedEpisode] = {}

    @property
    def open(self) -> int:
        """Episodes held now."""
        return self._slots.used

    def clients(self) -> Collection[ServedClient]:
        """Return the clients that have episodes or a stream."""
        return self._clients.values()

    def client(self, client_id: str, connection: str | None = None) -> ServedClient:
        """Return the client of a name, known or new, which now has this connection (unset: one of its own)."""
        client = self._clients.get(client_id)
        if client is None:
            self._client_numbers += 1
            client = self._clients[client_id] = ServedClient(client_id, self._client_numbers, "")
            client.counts = self.by_hand.counts_of(client_id)
            self._clients_by_index[client.index] = client
        client.connection = connection or client_id
        return client

    def forget_client(self, client: ServedClient) -> None:
        """Forget a client that has no episodes and no stream."""
        self._clients.pop(client.client_id, None)
        self._clients_by_index.pop(client.index, None)

    def slots_of(self, handles: Array, client_indices: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Look handles up.

        Args:
            handles: uint64[n].
            client_indices: Number of the client that sent each, int[n].

        Returns:
            The slots, and whether each is an open episode of that client (where not, the slot is 0).
        """
        slots = (handles & _SLOT_MASK).astype(np.int64)
        inside = slots < self.max_open
        if not all_true(inside):
            slots = np.where(inside, slots, 0)
        known = inside & (self._generation[slots] == (handles >> _GENERATION_SHIFT)) & (self._client_index[slots] == client_indices)
        return (slots if all_true(known) else np.where(known, slots, 0)), known

    def open_episode(
        self, client: ServedClient, episode_id: str, *, training: bool, now_s: float, draw_key: int = 0, choice: Choice = _LIVE
    ) -> int:
        """Open an episode and return its slot. There must be room, and the id must be free."""
        slot = self._slots.take()
        assert slot is not None, "open_episode needs room"
        self._generation[slot] += 1
        self._client_index[slot] = client.index
        self.next_sequence[slot] = 0
        self.training[slot] = training
        self.policies[slot], self.greedy[slot] = choice.number, choice.greedy
        if choice.number != LIVE or choice.greedy:
            self.unlike_most += 1
            self._policy_names[slot] = choice.name
        self.draw_keys[slot] = draw_key
        self.returns[slot] = 0.0
        self.given[slot] = 0
        self.given_at[slot] = 0
        self.overridden[slot] = 0
        self.started_s[slot] = now_s
        self._ids[slot] = episode_id
        client.aliases[episode_id] = slot
        self._finished_by_id.pop((client.client_id, episode_id), None)
        return slot

    def close_episode(self, slot: int, *, idle: bool) -> None:
        """Close an episode and remember how it ended."""
        episode_id = self._ids.pop(slot)
        client = self._clients_by_index[int(self._client_index[slot])]
        del client.aliases[episode_id]
        handle = self.handle(slot)
        self._client_index[slot] = 0
        if self._policy_names.pop(slot, None) is not None:
            self.unlike_most -= 1
        self._slots.give(slot)
        if self._remembered:
            last = FinishedEpisode(client.client_id, episode_id, handle, int(self.next_sequence[slot]) - 1, int(self.content[slot]), idle)
            self._finished[handle] = self._finished_by_id[client.client_id, episode_id] = last
            while len(self._finished) > self._remembered:
                _, oldest = self._finished.popitem(last=False)
                if self._finished_by_id.get((oldest.client_id, oldest.episode_id)) is oldest:
                    del self._finished_by_id[oldest.client_id, oldest.episode_id]

    def policy_name(self, slot: int) -> str:
        """Return the name of the policy that decides an open episode."""
        return self._policy_names.get(slot, LIVE_NAME)

    def figures_name(self, slot: int) -> str:
        """Return the name under which an open episode will be counted."""
        return named_figures(self._policy_names[slot], greedy=bool(self.greedy[slot])) if slot in self._policy_names else LIVE_NAME

    def owner(self, slot: int) -> tuple[ServedClient, str]:
        """Return whose an open episode is, and its id."""
        return self._clients_by_index[int(self._client_index[slot])], self._ids[slot]

    def handle(self, slot: int) -> int:
        """Return the handle of an open episode."""
        return int(self._generation[slot]) << 32 | slot

    def handles(self, slots: Array) -> npt.NDArray[np.uint64]:
        """Return the handles of open episodes, uint64[n]."""
        return (self._generation[slots].astype(np.uint64) << _GENERATION_SHIFT) | slots.astype(np.uint64)

    def finished(self, handle: int, client_id: str) -> FinishedEpisode | None:
        """Return what is remembered of a client's finished episode, by handle."""
        episode = self._finished.get(handle)
        return episode if episode is not None and episode.client_id == client_id else None

    def finished_by_id(self, client_id: str, episode_id: str) -> FinishedEpisode | None:
        """Return what is remembered of a client's finished episode, by the client's id."""
        return self._finished_by_id.get((client_id, episode_id))

    def states(self, slots: Array, is_new: Array) -> list[Array]:
        """Gather the recurrent states of episodes, leaf by leaf; the initial state where there is no episode yet."""
        gathered = []
        for column, initial in zip(self.state, self._initial_state, strict=True):
            leaf = column[slots]
            leaf[is_new] = initial
            gathered.append(leaf)
        return gathered

    def note_decisions(self, slots: Array, decisions: ModuleOutputs, executed: Array, state: list[Array]) -> None:
        """Keep the newest decisions of episodes.

        Args:
            slots: The episodes, int64[n].
            decisions: Of these n.
            executed: The actions in the client's form, [n, *action shape].
            state: The state after them, leaf by leaf, [n, ...].
        """
        self.actions[slots] = executed
        self.log_probs[slots] = decisions.log_probs if decisions.log_probs is not None else np.nan
        self.weights_seq_nos[slots] = decisions.weights_seq_no
        for column, leaf in zip(self.state, state, strict=True):
            column[slots] = leaf

    def note_given(self, slots: Array) -> int:
        """Count the newest actions of episodes, which their clients chose themselves, each once; return how many are new."""
        slots = slots[self.given_at[slots] != self.next_sequence[slots]]
        self.given_at[slots] = self.next_sequence[slots]
        self.given[slots] += 1
        for index, count in zip(*(column.tolist() for column in np.unique(self._client_index[slots], return_counts=True)), strict=True):
            client = self._clients_by_index[index]
            client.counts.given += count
            self.by_hand.note(client.client_id, client.counts)
        return len(slots)

    def is_given(self, slot: int) -> bool:
        """Tell whether the newest action of an episode was noted as its client's own."""
        return bool(self.given_at[slot] == self.next_sequence[slot])

    def note_overridden(self, slot: int) -> None:
        """Count that a client chose another action for the newest step of an episode than it was answered."""
        self.overridden[slot] += 1
        self._clients_by_index[int(self._client_index[slot])].counts.overridden += 1

    def trim(self) -> None:
        """Give the memory of slots that are no longer used back to the operating system."""
        self._slots.trim()
