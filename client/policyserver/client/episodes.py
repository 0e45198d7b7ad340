"""All episodes of a client: the open ones, the next row of each, and why the others are closed.

Nothing here waits or locks: the caller holds the client's lock.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, cast

from policyserver.client.rows import MAX_EPISODE_ID_BYTES, NO_INFO, ClientEpisode, OutgoingRows, Steps, select
from policyserver.common.caller_episode import belongs_to_no_action
from policyserver.common.errors import (
    EpisodeDuplicateError,
    EpisodeError,
    EpisodeFinishedError,
    EpisodeLostError,
    EpisodeUnknownError,
    InvalidInputError,
    PolicyServerError,
    SequenceError,
)
from policyserver.common.flags import StepFlag

if TYPE_CHECKING:
    from policyserver.client.connection import Connection

_log = logging.getLogger(__name__)

_OVERRIDE, _END = int(StepFlag.OVERRIDE), int(StepFlag.END)

# Columns of a single row that are the same each time, so that a step makes fewer objects:
_FIRST = (0,)
_FLAGS = tuple(bytes((flags,)) for flags in range(256))


class _Fate(Enum):
    """Why an episode is not open: the error, its reason, its text after the id (RLlib's words where RLlib has any)."""

    UNKNOWN = EpisodeUnknownError, "EPISODE_UNKNOWN", "not found."
    FINISHED = EpisodeFinishedError, "EPISODE_FINISHED", "has already completed."
    IDLE = EpisodeFinishedError, "EPISODE_IDLE", "was ended by the server, because its client was silent for too long."
    LOST = EpisodeLostError, "", "was lost with the serving process that had it; start a new one."


_FATES = {fate.value[1]: fate for fate in _Fate if fate is not _Fate.LOST}


class ClientEpisodes:
    """The episodes of one client, by id."""

    def __init__(self, closed_remembered: int) -> None:
        """Begin without episodes.

        Args:
            closed_remembered: number of closed episodes whose fate is kept, the newest.
        """
        self.open: dict[str, ClientEpisode] = {}
        self.episodes_lost = 0
        """Episodes that ended because the server restarted."""
        self.rewards_dropped = 0
        """Rewards logged before the first action of their episode, which belong to no action."""
        self._closed: OrderedDict[str, _Fate] = OrderedDict()
        self._closed_remembered = closed_remembered

    def start(self, episode_ids: Sequence[str], training_enabled: bool, policy: str = "", *, greedy: bool = False) -> None:
        """Open episodes, all or none.

        Raises:
            InvalidInputError: an id is empty, too long, or no valid text.
            EpisodeDuplicateError: an episode of that id is open.
            EpisodeFinishedError: an episode of that id has ended.
        """
        if policy != "":
            _check_id(policy, "policy")
        new: dict[str, ClientEpisode] = {}
        for episode_id in episode_ids:
            _check_id(episode_id)
            if episode_id in self.open or episode_id in new:
                raise EpisodeDuplicateError(f"Episode {episode_id} is already started.", field="episode_id")
            if self._closed.get(episode_id) in (_Fate.FINISHED, _Fate.IDLE):  # the server remembers both
                raise self.absent(episode_id)
            new[episode_id] = ClientEpisode(episode_id, training_enabled, policy, greedy=greedy)
        for episode_id in new:
            self._closed.pop(episode_id, None)
        self.open |= new

    def get(self, episode_id: str) -> ClientEpisode:
        """Look up an open episode.

        Raises:
            EpisodeError: it never began here, has ended, or was lost.
        """
        episode = self.open.get(episode_id)
        if episode is None:
            raise self.absent(episode_id)
        return episode

    def add_reward(self, episode_id: str, reward: float, info: str) -> None:
        """Add to the reward of the newest action; a later info replaces an earlier one of the same step.

        Raises:
            EpisodeError: the episode is not open.
            InvalidInputError: a step cannot carry the sum; nothing was changed.
        """
        episode = self.get(episode_id)
        if not episode.log(reward, info):
            self._drop(episode, reward)

    def _drop(self, episode: ClientEpisode, reward: float) -> None:
        self.rewards_dropped += 1
        _log.log(logging.WARNING if self.rewards_dropped == 1 else logging.DEBUG, belongs_to_no_action(episode.id, reward))

    def add_rewards(self, episode_ids: Sequence[str], rewards: Sequence[float], errors: dict[int, PolicyServerError]) -> None:
        """Add to the rewards of episodes, but for those that have errors, by index; new errors are added to them."""
        for index, (episode_id, reward) in enumerate(zip(episode_ids, rewards, strict=True)):
            if index in errors:
                continue
            try:
                self.add_reward(episode_id, reward, "")
            except PolicyServerError as error:
                errors[index] = error

    def prepare_one(
        self, episode_id: str, kind: int, observation: tuple[bytes, ...], action: tuple[bytes, ...], place: Callable[[], Connection]
    ) -> OutgoingRows:
        """Make the next row of an episode, or take again the one that is still unanswered. See `prepare`.

        Raises:
            PolicyServerError: the row cannot go out.
        """
        episode = self.open.get(episode_id)
        if episode is None or episode.busy or episode.in_flight is not None:
            rows, errors = self.prepare(Steps([episode_id], [kind], observation, action), place)
            if errors:
                raise errors[0]
            return rows
        if episode.connection is None:
            _place(episode, place)
        flags = _FLAGS[episode.take(kind)]
        infos = (episode.sent_info,) if episode.sent_info else NO_INFO
        rows = OutgoingRows(_FIRST, (episode,), (episode.sequence,), flags, (episode.sent_reward,), infos, observation, action)
        episode.busy = threading.get_ident()
        episode.in_flight = rows, 0
        return rows

    def prepare(self, steps: Steps, place: Callable[[], Connection]) -> tuple[OutgoingRows, dict[int, PolicyServerError]]:
        """Make the next row of each episode, or take again the one that is still unanswered.

        Args:
            steps: of n episodes.
            place: says where an episode goes that begins.

        Returns:
            The rows that can go out, their episodes now busy, and the errors of the others, by index.
        """
        total, observations, actions = len(steps.ids), steps.observations, steps.actions
        indices: list[int] = []
        episodes: list[ClientEpisode] = []
        flags: list[int] = []
        rewards: list[float] = []
        infos: list[str] = []
        errors = dict(steps.errors)
        for index, (episode_id, kind) in enumerate(zip(steps.ids, steps.kinds, strict=True)):
            if index in errors:
                continue
            episode = self.open.get(episode_id)
            if episode is None or episode.busy or episode.in_flight is not None:
                try:
                    episode, row_flags = self._in_flight_again(steps, index)
                except PolicyServerError as error:
                    errors[index] = error
                    continue
            else:
                row_flags = episode.take(kind)
            if episode.connection is None:
                _place(episode, place)
            indices.append(index)
            episodes.append(episode)
            flags.append(row_flags)
            rewards.append(episode.sent_reward)
            infos.append(episode.sent_info or "")
        if errors:
            observations, actions = select(observations, indices, total), select(actions, indices, total)
        rows = OutgoingRows(indices, episodes, [episode.sequence for episode in episodes], flags, rewards, infos, observations, actions)
        thread = threading.get_ident()
        for row, episode in enumerate(episodes):
            episode.busy = thread
            if not flags[row] & _OVERRIDE:
                episode.in_flight = rows, row
        return rows, errors

    def commit(self, rows: OutgoingRows, handles: Sequence[int], *, lost: bool) -> None:
        """Take note that the server applied rows; `lost` if it has gone since."""
        for episode, handle, flags in zip(rows.episodes, handles, rows.flags, strict=True):
            episode.answered(handle)
            episode.busy = 0
            if flags & _END:
                self._close(episode, _Fate.FINISHED)
            elif lost:
                self._close(episode, _Fate.LOST)

    def commit_one(self, rows: OutgoingRows, handle: int, *, lost: bool) -> None:
        """Take note that the server applied the only one of the rows; see `commit`."""
        episode = rows.episodes[0]
        episode.answered(handle)
        episode.busy = 0
        if lost or rows.flags[0] & _END:
            self._close(episode, _Fate.FINISHED if rows.flags[0] & _END else _Fate.LOST)

    def refuse(self, rows: OutgoingRows, row: int, error: PolicyServerError) -> None:
        """Take note that the server refused a row, which changed nothing there: what it carried goes with another."""
        episode = rows.episodes[row]
        episode.busy = 0
        fate = _FATES.get(error.reason)
        if fate is not None:
            self._close(episode, fate)
        elif dropped := episode.refused(rows.flags[row]):
            self._drop(episode, dropped)

    def abandon(self, episode_ids: Iterable[str]) -> None:
        """Take note that the calling thread no longer waits for the answers to these episodes' rows. They stay in flight."""
        thread = threading.get_ident()
        for episode_id in episode_ids:
            episode = self.open.get(episode_id)
            if episode is not None and episode.busy == thread:
                episode.busy = 0

    def lose(self, connection: Connection, *, is_replaced: bool = True, place: Callable[[], Connection] | None = None) -> None:
        """Close the episodes of a runner that is gone.

        If it is replaced, those with an unanswered first row begin with its successor. If it had said that it starts none, they begin where
        `place` says.
        """
        for episode in [episode for episode in self.open.values() if episode.connection is connection]:
            if episode.sequence == 0 and connection.retires and place is not None:
                _place(episode, place)
                connection.release()
            elif episode.sequence > 0 or not is_replaced:
                self._close(episode, _Fate.LOST)

    def is_open(self, episode: ClientEpisode) -> bool:
        """Tell whether this very episode is still open."""
        return self.open.get(episode.id) is episode

    def absent(self, episode_id: str) -> EpisodeError:
        """Say why an episode is not open."""
        cls, reason, text = cast("tuple[type[EpisodeError], str, str]", self._closed.get(episode_id, _Fate.UNKNOWN).value)
        return cls(f"Episode {episode_id} {text}", reason=reason, field="episode_id")

    def _in_flight_again(self, steps: Steps, index: int) -> tuple[ClientEpisode, int]:
        """Return the episode and the flags of its unanswered row, which is asked for again, or whose action a given one is to replace."""
        episode, total = self.get(steps.ids[index]), len(steps.ids)
        if episode.busy:
            raise SequenceError(
                f"Episode {episode.id}: another thread waits for its step {episode.sequence}; its calls must follow each other"
            )
        assert episode.in_flight is not None
        rows, place = episode.in_flight
        same = select(rows.observations, [place], len(rows)) == select(steps.observations, [index], total)
        same_action = select(rows.actions, [place], len(rows)) == select(steps.actions, [index], total)
        flags = episode.retake(steps.kinds[index], same_observation=same, same_action=same_action)
        if flags is None:
            raise SequenceError(
                f"Episode {episode.id}: step {episode.sequence} is still unanswered: expected the same call with the same observation, or "
                f"log_action with that observation; received {'another call' if same else 'another observation'}"
            )
        return episode, flags

    def _close(self, episode: ClientEpisode, fate: _Fate) -> None:
        if self.open.get(episode.id) is episode:
            del self.open[episode.id]
            if episode.connection is not None:
                episode.connection.release()
            self._closed[episode.id] = fate
            self.episodes_lost += fate is _Fate.LOST
            if len(self._closed) > self._closed_remembered:
                self._closed.popitem(last=False)


def _place(episode: ClientEpisode, place: Callable[[], Connection]) -> None:
    """Give an episode its runner."""
    episode.connection = place()
    episode.connection.episodes_open += 1


def _check_id(name: object, field: str = "episode_id") -> None:
    """Refuse what cannot name an episode, or a policy.

    Raises:
        InvalidInputError: no text, empty, too long, or no valid Unicode.
    """
    expected = f"{field}: expected a text of 1 to {MAX_EPISODE_ID_BYTES} bytes in UTF-8, received"
    if not isinstance(name, str):
        raise InvalidInputError(f"{expected} {type(name).__name__}", field=field)
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{expected} {name[:40]!r}", field=field) from error
    if not 0 < size <= MAX_EPISODE_ID_BYTES:
        raise InvalidInputError(f"{expected} {size} bytes", field=field)
