"""Whether recorded steps reach the learner: not while learning is paused, nor from the daemon's silence until the learner asks."""

from __future__ import annotations

import time

from policyserver.server.episodes.ended_episodes import EndedEpisodes
from policyserver.server.episodes.room import Room
from policyserver.server.episodes.sample_requests import SampleRequests
from policyserver.server.episodes.trajectories import Trajectories


class LearnerAbsence:
    """Lets steps go, and no question wait, for as long as there is a reason. Owned by the loop thread."""

    def __init__(self, trajectories: Trajectories, room: Room, requests: SampleRequests, ended: EndedEpisodes) -> None:
        """Begin with a learner that is there."""
        self._trajectories, self._room, self._requests, self._ended = trajectories, room, requests, ended
        self._is_paused = self._awaits_request = False
        """Whether learning is paused; whether the learner has asked for no steps since the daemon was silent."""
        self._silent_since_s: float | None = None
        requests.on_ask = self._note_request

    @property
    def is_silent(self) -> bool:
        """Whether the daemon is silent, so that answers are of an old version."""
        return self._silent_since_s is not None

    @property
    def silent_s(self) -> float:
        """How long the daemon has been silent, since that was noticed; 0 while it is heard of."""
        return 0.0 if self._silent_since_s is None else time.monotonic() - self._silent_since_s

    def pause(self, paused: bool) -> None:
        """Let steps by-pass the learner while it is paused, or go on as before. A second call does nothing."""
        self._is_paused = paused
        self._follow()

    def note_silence(self, is_silent: bool) -> None:
        """Let steps by-pass the learner while the daemon is silent, and give it none, or go on as before. A second call does nothing.

        After the silence steps are for the learner, and questions wait for it, once it asks again: RLlib's own calls may come half a minute
        after the daemon's first sign of life. A client that waited here would take no steps elsewhere. Steps that were kept meanwhile, when
        none waits, would be many batches of old versions, and all clients would wait until the learner is through with them.
        """
        if is_silent != self.is_silent:
            self._silent_since_s = time.monotonic() if is_silent else None
            self._awaits_request = True
            self._requests.hold(is_silent)
            self._follow()

    def _note_request(self) -> None:
        if self._awaits_request and not self.is_silent:
            self._awaits_request = False
            self._follow()

    def _follow(self) -> None:
        is_cut_off = self.is_silent or self._awaits_request
        lets_go = self._is_paused or is_cut_off
        self._trajectories.let_go(paused=self._is_paused, cut_off=is_cut_off)
        self._room.pause(lets_go)
        self._ended.is_paused = lets_go
