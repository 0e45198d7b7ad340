"""Asks a server again for the actions of a recorded run: with the same observations, under the same names of episodes.

A server draws an episode's actions by the episode's name, its step and the server's seed. So one whose policy is that of the run, and stays
it, gives the same ones. Numbers of a Box are compared within float32's rounding, which depends on what else is in the server's batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.client import PolicyClient
from policyserver.common.errors import PolicyServerError
from policyserver.common.settings import SettingsError
from policyserver.pipelines.events import EndEvent
from policyserver.pipelines.played_block import Observations
from policyserver.pipelines.replay.columns import ActionType
from policyserver.pipelines.replay.comparison import Difference, DifferentError, NotReplayableError
from policyserver.pipelines.replay.replayed_run import RecordedRun
from policyserver.pipelines.replay.replayer import RecordedPolicy
from policyserver.pipelines.replay.turn import StepOutcome
from policyserver.pipelines.run import connect

_RELATIVE, _ABSOLUTE = 1e-5, 1e-6


class AskedPolicy(RecordedPolicy):
    """Asks a server for each action that the policy gave, and goes on with the recorded one if the answer is the same."""

    def __init__(self, action: ActionType, client: PolicyClient) -> None:
        """Ask by `client`, which stays the caller's."""
        super().__init__(action)
        self._client = client
        self._version: int | None = None

    def start_episodes(self, episodes: Sequence[str], training_enabled: bool) -> list[str]:
        """See `RecordedPolicy`; the server is not to learn from them."""
        super().start_episodes(episodes, training_enabled)
        with _no_other_answer():
            return self._client.start_episodes(episodes, training_enabled=False)

    def get_actions(self, episode_ids: Sequence[str], observations: Observations) -> Any:
        """Ask again for what was answered in time.

        Raises:
            DifferentError: An answer is another one.
            NotReplayableError: The server has learnt since its first answer.
            BatchError: As recorded.
        """
        outcomes, _, flat = self.turn.decided
        asked = np.flatnonzero(outcomes != StepOutcome.WAITS)
        places = np.flatnonzero(outcomes[asked] == StepOutcome.POLICY)
        if len(places):
            with _no_other_answer():
                answers = self._client.get_actions([episode_ids[place] for place in places.tolist()], observations[places])
            self._compare(self.turn.asked[0][asked[places]], self._action.of(flat[asked[places]]), np.asarray(answers))
        return super().get_actions(episode_ids, observations)

    def log_actions(self, episode_ids: Sequence[str], observations: Observations, actions: npt.NDArray[Any]) -> None:
        """Report fallbacks, so that the server counts the episode's steps as then."""
        with _no_other_answer():
            self._client.log_actions(episode_ids, observations, actions)

    def log_returns_batch(self, episode_ids: Sequence[str], rewards: Sequence[float]) -> None:
        """Report rewards."""
        self._client.log_returns_batch(episode_ids, rewards)

    def end(self, events: Sequence[EndEvent]) -> None:
        """End what the server knows."""
        ended = [each for event in events for each in event.ended if each.ending != "lost" and each.is_started]
        if ended:
            observations = np.stack([each.observation for each in ended])
            self._client.end_episodes([each.id for each in ended], observations, truncated=True)

    def _compare(self, rows: npt.NDArray[Any], recorded: npt.NDArray[Any], answers: npt.NDArray[Any]) -> None:
        if self._version not in (None, self._client.weights_seq_no):
            raise NotReplayableError(
                f"expected a server that does not learn, received policy version {self._version}, then {self._client.weights_seq_no}"
            )
        self._version = self._client.weights_seq_no
        is_real = recorded.dtype.kind == "f"
        same = np.isclose(recorded, answers, rtol=_RELATIVE, atol=_ABSOLUTE) if is_real else recorded == answers
        wrong = np.flatnonzero(~same.reshape(len(same), -1).all(axis=1))
        if len(wrong):
            place = int(wrong[0])
            raise DifferentError(Difference("decided", "action", int(rows[place]), recorded[place].tolist(), answers[place].tolist()))


@contextmanager
def _no_other_answer() -> Iterator[None]:
    """Keep an error of the server from being taken for a late answer of the run."""
    try:
        yield
    except PolicyServerError as error:
        raise NotReplayableError(
            f"--server: expected an answer, received {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


@contextmanager
def asked_policy(recorded: RecordedRun, address: str | None) -> Iterator[AskedPolicy]:
    """Open a client of the server that is asked.

    Raises:
        NotReplayableError: The run learnt while it acted; or there is no such server, it has other spaces, or it refuses an episode.
    """
    versions = recorded.policy_versions()
    if len(versions) > 1:
        found = f"policy versions {min(versions)} to {max(versions)}"
        raise NotReplayableError(f"--ask: expected a run whose policy did not learn (episodes.training_enabled = false), received {found}")
    config = recorded.config
    server = dataclasses.replace(config.server, address=address or config.server.address, instance_id=None)
    any_run = dataclasses.replace(config, server=server, recording=dataclasses.replace(config.recording, run=None))
    try:
        with connect(any_run) as client:
            yield AskedPolicy(recorded.log.action, client)
    except (PolicyServerError, SettingsError) as error:
        raise NotReplayableError(f"{server.address}: {' '.join(str(error).split())}") from error
