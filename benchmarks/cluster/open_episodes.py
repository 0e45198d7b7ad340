"""Plays thousands of episodes that stay open together, as one process of clients, and keeps its own ledger until it is told to end.

    python -m benchmarks.cluster.open_episodes ADDRESS EPISODES ROWS_PER_CALL EPISODE_STEPS SEED OUTPUT

Each of EPISODES places has an episode at all times: one that ends or is lost has a successor. The places whose episodes are at one serving
process are played by a thread of their own, ROWS_PER_CALL at most with each call, so that one process that is away holds up no other
episode. After SIGTERM all episodes end as truncated, and OUTPUT gets the ledger.
"""

from __future__ import annotations

import collections
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.cluster.labels import NUMBERS, is_right, mixed_up, observations
from benchmarks.cluster.ledger import UNKNOWN, Ledger, Places
from policyserver.client import (
    ActionTimeoutError,
    BatchError,
    ClientConfig,
    PolicyClient,
    PolicyServerError,
    ServerOverloadedError,
    ServerUnavailableError,
)
from policyserver.client.connection import Connection

TLS = Path("/tmp/tls")
CONFIG: dict[str, float] = {"action_timeout_s": 20.0, "connect_timeout_s": 5.0, "keepalive_time_s": 2.0, "keepalive_timeout_s": 2.0}
"""Settings of the client, which the guide "On a cluster" names."""
_LOOK_S = 0.5
_STARTS = ""
"""Queue of the places whose episodes are to begin."""
_UNANSWERED = (ActionTimeoutError, ServerUnavailableError, ServerOverloadedError)
"""Errors after which the same is asked again."""
_ATTEMPTS = 5
_PARTS = 1024
"""Fractions of 1 that rewards are made of: sums are exact in binary."""


class OpenEpisodes:
    """So many places, each with an episode at all times."""

    def __init__(self, client: PolicyClient, places: int, rows_per_call: int, episode_steps: int, seed: int) -> None:
        """Prepare; `play` begins.

        Args:
            client: of this object alone.
            places: episodes that are open together.
            rows_per_call: most episodes of one call.
            episode_steps: mean length of an episode; each has half of it to one and a half.
            seed: of the observations and lengths.
        """
        self._client = client
        self._rows_per_call, self._episode_steps = rows_per_call, episode_steps
        self._random = np.random.default_rng(seed)
        self.ledger = Ledger()
        self.over = threading.Event()
        self.failure: BaseException | None = None
        self._ids = [""] * places
        self._observations = np.zeros((places, NUMBERS), np.float32)
        self._own = np.arange(places) % _PARTS / _PARTS
        """What each action of a place brings: another sum for each episode."""
        self._ages, self._lengths = np.zeros(places, np.int64), np.zeros(places, np.int64)
        self._has_acted = np.zeros(places, np.bool_)
        self._waiting, self._returns = np.zeros(places), np.zeros(places)
        """Rewards that are not acknowledged yet, and sums of those that are, of the open episodes."""
        self._boots = [UNKNOWN] * places
        self._changed = threading.Condition()
        """Guards the queues and the ledger."""
        self._queues: dict[str, collections.deque[Places]] = {_STARTS: collections.deque([np.arange(places)])}
        self._threads: list[threading.Thread] = []

    def play(self) -> None:
        """Begin to play, on threads of its own."""
        self._begin(_STARTS)

    def have_all_acted(self) -> bool:
        """Tell whether an episode of each place has acted."""
        return bool(self._has_acted.all())

    def end(self) -> Ledger:
        """Stop playing, end all episodes as truncated, and return the ledger."""
        self._stop()
        for thread in self._threads:
            thread.join()
        acted = np.flatnonzero(self._ages > 0)
        for places in np.split(acted, range(self._rows_per_call, len(acted), self._rows_per_call)):
            self._end(places, truncated=True)
        return self.ledger

    def _stop(self) -> None:
        with self._changed:
            self.over.set()
            self._changed.notify_all()

    # Threads -----------------------------------------------------------------------------------------------------------------------------

    def _begin(self, queue: str) -> None:
        thread = threading.Thread(target=self._run, args=(queue,), name=f"plays {queue or 'starts'}")
        self._threads.append(thread)
        thread.start()

    def _run(self, queue: str) -> None:
        try:
            while (places := self._take(queue)) is not None:
                if queue == _STARTS:
                    self._start(places)
                else:
                    self._step(places, queue)
        except BaseException as error:
            self.failure = error
            self._stop()
            raise

    def _take(self, queue: str) -> Places | None:
        """Wait for places of a queue, and take those that wait longest; None when it is over."""
        with self._changed:
            waiting = self._queues[queue]
            self._changed.wait_for(lambda: self.over.is_set() or len(waiting) > 0)
            if self.over.is_set():
                return None
            taken: list[Places] = []
            while waiting and sum(map(len, taken)) < self._rows_per_call:
                taken.append(waiting.popleft())
            places = np.concatenate(taken)
            if len(places) > self._rows_per_call:
                waiting.appendleft(places[self._rows_per_call :])
            return places[: self._rows_per_call]

    def _put(self, places: Places, queue: str) -> None:
        """Let places wait, on a queue that has a thread."""
        if len(places):
            with self._changed:
                is_new = queue not in self._queues
                self._queues.setdefault(queue, collections.deque()).append(places)
                self._changed.notify_all()
            if is_new:
                self._begin(queue)

    # Episodes ----------------------------------------------------------------------------------------------------------------------------

    def _start(self, places: Places) -> None:
        try:
            ids = self._client.start_episodes(len(places))
        except PolicyServerError as error:
            self._note_errors([error] * len(places))
            self.over.wait(0.1)
            self._put(places, _STARTS)
            return
        for place, episode in zip(places.tolist(), ids, strict=True):
            self._ids[place], self._boots[place] = episode, UNKNOWN
        half = self._episode_steps // 2
        self._lengths[places] = self._random.integers(max(1, half), self._episode_steps + half + 1, size=len(places))
        self._ages[places] = 0
        self._waiting[places] = self._returns[places] = 0.0
        self._observations[places] = observations(self._random, len(places))
        self._step(places, _STARTS)

    def _step(self, places: Places, queue: str) -> None:
        """Ask for an action of each place's episode, and put the places where they go on."""
        ids = [self._ids[place] for place in places.tolist()]
        asked, failed = self._observations[places], dict[int, PolicyServerError]()
        began_s = time.time()
        try:
            actions = np.asarray(self._client.get_actions(ids, asked))
        except BatchError as error:
            actions, failed = np.asarray(error.actions), dict(error.errors)
        ended_s = time.time()
        is_answered = np.ones(len(places), np.bool_)
        is_answered[list(failed)] = False
        answered, actions = places[is_answered], actions[is_answered]
        self._find(places[self._ages[places] == 0])
        with self._changed:
            self.ledger.note_call(began_s, ended_s, (self._boots[place] for place in places.tolist()))
            self.ledger.note_acted(ended_s, answered)
            self.ledger.mixed_up += mixed_up(asked[is_answered], actions)
            self._note_acknowledged(answered, acts=True)
        self._note_errors(list(failed.values()))
        self._ages[answered] += 1
        self._has_acted[answered] = True
        rewards = self._own[answered] + 0.5 * is_right(asked[is_answered], actions)
        self._waiting[answered] = rewards
        with suppress(BatchError):  # of episodes that were lost since, as their next call says
            self._client.log_returns_batch([self._ids[place] for place in answered.tolist()], rewards)
        self._observations[answered] = observations(self._random, len(answered))
        is_over = self._ages[answered] >= self._lengths[answered]
        self._end(answered[is_over])
        self._put(answered[is_over], _STARTS)
        goes_on = [answered[~is_over], places[[row for row, error in failed.items() if isinstance(error, _UNANSWERED)]]]
        self._put_where_they_are(np.concatenate(goes_on).astype(np.int64), queue)
        self._lose(places[[row for row, error in failed.items() if not isinstance(error, _UNANSWERED)]].astype(np.int64))

    def _end(self, places: Places, *, truncated: bool = False) -> None:
        """End the episodes of some places, and ask again while there is no answer."""
        for _ in range(_ATTEMPTS):
            if not len(places):
                return
            ids = [self._ids[place] for place in places.tolist()]
            failed: Mapping[int, PolicyServerError] = {}
            began_s = time.time()
            try:
                self._client.end_episodes(ids, self._observations[places], truncated)
            except BatchError as error:
                failed = error.errors
            is_answered = np.ones(len(places), np.bool_)
            is_answered[list(failed)] = False
            with self._changed:
                self.ledger.note_call(began_s, time.time(), (self._boots[place] for place in places.tolist()))
                self._note_acknowledged(places[is_answered], acts=False)
                for place in places[is_answered].tolist():
                    ended = int(self._ages[place]), float(self._returns[place])
                    self.ledger.of(self._boots[place]).episodes[self._ids[place]] = ended
            self._note_errors(list(failed.values()))
            self._count_lost(places[[row for row, error in failed.items() if not isinstance(error, _UNANSWERED)]].astype(np.int64))
            self._ages[places[is_answered]] = 0
            places = places[[row for row, error in failed.items() if isinstance(error, _UNANSWERED)]].astype(np.int64)

    def _note_acknowledged(self, places: Places, *, acts: bool) -> None:
        """Note rows that were answered: each brought the reward of the action before it. Under the lock."""
        self._returns[places] += self._waiting[places]
        had_acted = self._ages[places] > 0
        boots = np.array([self._boots[place] for place in places.tolist()], dtype=np.str_)
        for boot in np.unique(boots).tolist():
            is_there = boots == boot
            part = self.ledger.of(boot)
            part.actions += acts * int(np.count_nonzero(is_there))
            part.steps += int(np.count_nonzero(is_there & had_acted))
            part.reward += float(self._waiting[places[is_there]].sum())
        self._waiting[places] = 0.0

    def _note_errors(self, errors: list[PolicyServerError]) -> None:
        with self._changed:
            self.ledger.errors.update(type(error).__name__ for error in errors)

    def _lose(self, places: Places) -> None:
        """Begin new episodes where the old ones were lost."""
        self._count_lost(places)
        self._put(places, _STARTS)

    def _count_lost(self, places: Places) -> None:
        with self._changed:
            for place in places.tolist():
                self.ledger.of(self._boots[place]).lost += 1
        self._ages[places] = 0

    def _find(self, places: Places) -> None:
        """Note at which serving processes episodes are whose first action was asked for."""
        for place, (target, boot) in zip(places.tolist(), self._homes(places), strict=True):
            self._boots[place] = boot
            if boot:
                with self._changed:
                    self.ledger.of(boot).target = target

    def _put_where_they_are(self, places: Places, queue: str) -> None:
        """Let places wait whose episodes go on."""
        if queue != _STARTS:
            self._put(places, queue)
            return
        homes = [target for target, _ in self._homes(places)]
        for target in sorted(set(homes)):
            self._put(places[[home == target for home in homes]], target)

    def _homes(self, places: Places) -> list[tuple[str, str]]:
        """Return the address and boot id of the serving process of each place's episode; no client says it in public."""
        client, found = self._client, []
        with client._balancer.shared.lock:
            for place in places.tolist():
                episode = client._episodes.open.get(self._ids[place])
                connection = cast(Connection | None, episode.connection) if episode is not None else None
                if connection is None or connection.session is None:
                    found.append((_STARTS, UNKNOWN))
                else:
                    found.append((connection.target, connection.session.info.boot_id))
        return found


def main(address: str, episodes: int, rows_per_call: int, episode_steps: int, seed: int, output: Path) -> None:
    """Play until SIGTERM."""
    is_told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_told.set())
    config = ClientConfig(tls_ca_file=TLS / "certificate", token_file=TLS / "token", **CONFIG)  # type: ignore[arg-type]
    with PolicyClient(address, config=config) as client:
        client.connect()
        played = OpenEpisodes(client, episodes, rows_per_call, episode_steps, seed)
        played.play()
        while not (is_told.wait(_LOOK_S) or played.over.is_set()):
            if played.have_all_acted():
                output.with_suffix(".playing").touch()
        ledger = played.end()
        if played.failure is not None:
            raise played.failure
        ledger.save(output)


if __name__ == "__main__":
    _, _address, *_numbers, _output = sys.argv
    _episodes, _rows_per_call, _episode_steps, _seed = map(int, _numbers)
    main(_address, _episodes, _rows_per_call, _episode_steps, _seed, Path(_output))
