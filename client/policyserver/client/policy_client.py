"""The client of a policy server, with the signature of RLlib's own PolicyClient."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, SupportsFloat

import gymnasium as gym
import numpy as np

from policyserver.client.balancing import Balancer
from policyserver.client.config import ClientConfig
from policyserver.client.episodes import ClientEpisodes
from policyserver.client.errors import BatchError
from policyserver.client.exchange import Exchange
from policyserver.client.lifetime import Inherited, Lifetime
from policyserver.client.messages import NegotiatedSession
from policyserver.client.rows import Steps, count, encoded_info
from policyserver.client.server_info import ClientCounters, ServerInfo
from policyserver.client.unary_questions import ask_server_info, ask_stats
from policyserver.common.endpoints import parse_address
from policyserver.common.errors import InvalidInputError
from policyserver.common.flags import StepFlag
from policyserver.common.rewards import to_reward, to_rewards
from policyserver.common.server_stats import ServerStats

_WANTED = int(StepFlag.NONE)
_GIVEN = int(StepFlag.ACTION_GIVEN)
_TERMINATED = int(StepFlag.TERMINATED)
_TRUNCATED = int(StepFlag.TRUNCATED)


class PolicyClient:
    """Asks a policy server for actions and reports the rewards.

    Any number of threads may use one client; they share one connection, and what they ask at the same time travels together. The calls of
    one episode must follow each other. The client connects at its first call, and again by itself whenever the connection breaks.

    If the server has several serving runners, the client connects to all of them and spreads its episodes: each stays on the runner that
    had the fewest when it began. A call with episodes on several runners asks all at once and waits for all. When a runner dies, its open
    episodes are lost; new ones go to the others until it is back.

    A call that failed with ActionTimeoutError or ServerUnavailableError leaves its step unanswered: ask again with the same observation and
    get the same action, counted once, or report by `log_action` what was done instead. Any other error of an episode's call means that
    nothing was changed. After EpisodeLostError (the serving runner died or was restarted) start a new episode.

    A client belongs to the process that made it: after a fork each call in the child raises ForkedClientError. A client that is dropped
    without `close` ends its connections by itself, with a ResourceWarning.

    Example:
        with PolicyClient("localhost:9900") as client:
            episode = client.start_episode()
            action = client.get_action(episode, observation)
            client.log_returns(episode, reward)
            client.end_episode(episode, last_observation)
    """

    def __init__(
        self,
        address: str,
        inference_mode: str = "remote",
        update_interval: float | None = 10.0,
        session: Any = None,
        *,
        config: ClientConfig | None = None,
        observation_space: gym.Space[Any] | None = None,
        action_space: gym.Space[Any] | None = None,
    ) -> None:
        """Prepare a client. Nothing is sent yet.

        Args:
            address: "http://host:port", "host:port" or "unix:path" of the server; of several serving runners any one.
            inference_mode: "remote": the server computes the actions. RLlib's default, "local", does not exist yet.
            update_interval: part of RLlib's signature; only local inference would use it.
            session: part of RLlib's signature; there is no HTTP session.
            config: timeouts, limits, encryption; None takes the defaults.
            observation_space: refuse servers with another one; None takes the server's.
            action_space: the same for actions.

        Raises:
            NotImplementedError: inference_mode is "local".
            InsecureTargetError: plaintext off the machine, a ValueError like what follows.
            ValueError: a bad address or mode, a file of the config that cannot be read, or a core of it that cannot be had.
        """
        if inference_mode == "local":
            raise NotImplementedError("inference_mode: expected 'remote', received 'local': local inference does not exist yet")
        if inference_mode != "remote":
            raise ValueError(f"inference_mode: expected 'remote', received {inference_mode!r}")
        self._config = config or ClientConfig()
        self._episodes = ClientEpisodes(self._config.closed_episodes_remembered)
        self._balancer = Balancer(parse_address(address), self._config, observation_space, action_space, self._episodes.lose)
        self._exchange = Exchange(self._episodes, self._balancer, self._config)
        self._lifetime = Lifetime(self, self._balancer, address)

    def start_episode(self, episode_id: str | None = None, training_enabled: bool = True, *, policy: str = "", explore: bool = True) -> str:
        """Begin an episode. Waits for the connection; the first observation tells the server of the episode.

        Args:
            episode_id: a name that no open or ended episode of this client has; its actions are drawn by it. None makes a random one.
            training_enabled: False serves the episode but never trains on it.
            policy: "live", the policy that learns; "live@start", the same, as it is when the episode begins; or the name of one that the
                server has loaded, such as "checkpoint-12". The first action raises PolicyUnknownError if the server has not. ""
                lets the server choose: "live", unless it divides its traffic.
            explore: False asks for the most likely actions.

        Returns:
            The episode's id.

        Raises:
            EpisodeDuplicateError: an episode of that id is open; EpisodeFinishedError: it has ended.
            ServerUnavailableError: no connection within `connect_timeout_s`.
            HandshakeError: the server speaks another protocol or has other spaces; AuthenticationError: it wants another token.
        """
        return self.start_episodes(1 if episode_id is None else [episode_id], training_enabled, policy=policy, explore=explore)[0]

    def start_episodes(
        self, episodes: int | Sequence[str], training_enabled: bool = True, *, policy: str = "", explore: bool = True
    ) -> list[str]:
        """Begin several episodes, how many or by their ids, all or none. See `start_episode`."""
        self._balancer.connect(self._config.connect_timeout_s)
        ids = [uuid.uuid4().hex for _ in range(episodes)] if isinstance(episodes, int) else list(episodes)
        with self._balancer.shared.lock:
            self._episodes.start(ids, training_enabled, policy, greedy=not explore)
        return ids

    def get_action(self, episode_id: str, observation: Any, *, timeout_s: float | None = None) -> Any:
        """Ask for the action on an observation. Rewards logged since the last one travel along.

        Args:
            episode_id: from `start_episode`.
            observation: a value of the observation space, or what converts to one without loss.
            timeout_s: longest time to wait, seconds; None takes `action_timeout_s`.

        Returns:
            A value of the action space.

        Raises:
            EpisodeError: unknown, ended or lost episode, or a step out of order.
            InvalidInputError: the observation does not fit the space; nothing was changed.
            ActionTimeoutError: no answer in time; ServerUnavailableError: no connection in time. The step is unanswered.
            ServerOverloadedError: the server refused the step until the time was over; nothing was changed.
            ClientClosedError: the client was closed.
        """
        session = self._negotiated()
        observations = session.observation.encode(observation)
        columns, row = self._exchange.step_one(session, episode_id, _WANTED, observations, (), self._timeout(timeout_s))
        return session.action.decode(columns, row)

    def get_actions(self, episode_ids: Sequence[str], observations: Any, *, timeout_s: float | None = None) -> Any:
        """Ask for the actions of n different episodes at once.

        Args:
            episode_ids: n ids.
            observations: a batch: the structure of one observation, with a leading axis n in each leaf.
            timeout_s: as in `get_action`.

        Returns:
            A batch of actions.

        Raises:
            BatchError: some rows failed, each with an error that `get_action` would raise; the others have their actions in it.
            InvalidInputError: the batch has another structure, shape or dtype, or an id comes twice; nothing was changed.
            ClientClosedError: the client was closed.
        """
        session = self._negotiated()
        rows = count(episode_ids)
        columns, bad = session.observation.encode_batch(observations, rows)
        outcome = self._exchange.step(session, Steps(episode_ids, [_WANTED] * rows, columns, errors=bad), self._timeout(timeout_s))
        actions = session.action.decode_batch(outcome.columns)
        self._exchange.note_answers(outcome)
        outcome.check(actions)
        return actions

    def log_action(self, episode_id: str, observation: Any, action: Any, *, timeout_s: float | None = None) -> None:
        """Report an action that the policy did not choose.

        After a `get_action` that found no answer in time, with the same observation, it replaces what the policy would have done.

        Args:
            episode_id: from `start_episode`.
            observation: a value of the observation space.
            action: a value of the action space.
            timeout_s: as in `get_action`.

        Raises:
            PolicyServerError: as in `get_action`.
        """
        session = self._negotiated()
        observations, actions = session.observation.encode(observation), session.action.encode(action)
        self._exchange.step_one(session, episode_id, _GIVEN, observations, actions, self._timeout(timeout_s))

    def log_actions(self, episode_ids: Sequence[str], observations: Any, actions: Any, *, timeout_s: float | None = None) -> None:
        """Report the actions of n different episodes at once. Batches and errors as in `get_actions`; see `log_action`."""
        session = self._negotiated()
        rows = count(episode_ids)
        columns, bad = session.observation.encode_batch(observations, rows)
        given, bad_given = session.action.encode_batch(actions, rows)
        steps = Steps(episode_ids, [_GIVEN] * rows, columns, given, bad_given | bad)
        self._exchange.step(session, steps, self._timeout(timeout_s)).check()

    def log_returns(self, episode_id: str, reward: SupportsFloat, info: Mapping[str, Any] | None = None) -> None:
        """Add to the reward of the episode's newest action. It travels with the next observation.

        A reward before the first action belongs to no action: it is dropped and counted, as RLlib drops it.

        Args:
            episode_id: from `start_episode`.
            reward: a finite number; a step carries a sum of its rewards that float32 can hold.
            info: what JSON can hold. Belongs to this step alone; the newest one counts.

        Raises:
            EpisodeError: unknown, ended or lost episode.
            InvalidInputError: no finite number, too large a sum, or an info that JSON cannot hold; nothing was changed.
        """
        amount, text = to_reward(reward), self._encoded(info)
        with self._balancer.shared.lock:
            self._balancer.check()
            self._episodes.add_reward(episode_id, amount, text)

    def log_returns_batch(self, episode_ids: Sequence[str], rewards: Sequence[SupportsFloat] | np.ndarray[Any, Any]) -> None:
        """Add to the rewards of n episodes. See `log_returns`.

        Raises:
            BatchError: some rows failed, each with an error that `log_returns` would raise; the others have their rewards.
            InvalidInputError: there is not one reward per id; nothing was changed.
        """
        if len(rewards) != len(episode_ids):
            raise InvalidInputError(f"rewards: expected {len(episode_ids)}, received {len(rewards)}", reason="BAD_REWARD", field="rewards")
        amounts, errors = to_rewards(rewards)
        with self._balancer.shared.lock:
            self._balancer.check()
            self._episodes.add_rewards(episode_ids, amounts, errors)
        if errors:
            raise BatchError(len(episode_ids), None, errors)

    def end_episode(self, episode_id: str, observation: Any, *, truncated: bool = False, timeout_s: float | None = None) -> None:
        """End an episode with its last observation, on which no action is taken.

        Args:
            episode_id: from `start_episode`.
            observation: a value of the observation space.
            truncated: the episode was cut rather than ended by its own rules: the learner bootstraps the observation's value.
            timeout_s: as in `get_action`.

        Raises:
            PolicyServerError: as in `get_action`. An episode that has ended raises EpisodeFinishedError.
        """
        session = self._negotiated()
        kind = _TRUNCATED if truncated else _TERMINATED
        observations = session.observation.encode(observation)
        self._exchange.step_one(session, episode_id, kind, observations, (), self._timeout(timeout_s))

    def end_episodes(
        self,
        episode_ids: Sequence[str],
        observations: Any,
        truncated: bool | Sequence[bool] | np.ndarray[Any, Any] = False,
        *,
        timeout_s: float | None = None,
    ) -> None:
        """End n different episodes at once. Batches and errors as in `get_actions`; see `end_episode`.

        Args:
            episode_ids: n ids.
            observations: a batch of last observations.
            truncated: one for all, or one for each.
            timeout_s: as in `get_action`.
        """
        session = self._negotiated()
        rows = count(episode_ids)
        if np.shape(truncated) not in ((), (rows,)):
            raise InvalidInputError(
                f"truncated: expected one bool or {rows}, received shape {list(np.shape(truncated))}", field="truncated"
            )
        kinds = np.where(np.broadcast_to(np.asarray(truncated, bool), rows), _TRUNCATED, _TERMINATED).tolist()
        columns, bad = session.observation.encode_batch(observations, rows)
        self._exchange.step(session, Steps(episode_ids, kinds, columns, errors=bad), self._timeout(timeout_s)).check()

    def take_learner_wait_s(self) -> float:
        """Return how long calls of the calling thread waited for the learner since it last asked, seconds.

        Such a wait comes before the action is decided and is not part of `action_timeout_s`; see `ClientConfig.waits_for_learner`.
        """
        return self._exchange.take_learner_wait_s()

    def answered_by(self) -> np.ndarray[Any, Any]:
        """Return the policy version behind each action of the calling thread's newest `get_actions`, int64 (n,).

        It is 0 where a row has no answer, also after a `get_actions` that raised BatchError.
        """
        return self._exchange.answers()[0]

    def answered_stale(self) -> np.ndarray[Any, Any]:
        """Return which actions of the calling thread's newest `get_actions` are stale, bool (n,); see `stale_runners`."""
        return self._exchange.answers()[1]

    @property
    def stale_runners(self) -> tuple[str, ...]:
        """Addresses of the serving runners whose newest answer is stale: they had not heard of their daemon for some seconds."""
        return self._balancer.stale_runners()

    @property
    def weights_seq_no(self) -> int:
        """Policy version that computed the newest answer."""
        return self._balancer.shared.weights_seq_no

    def connect(self) -> ServerInfo:
        """Wait for the connection, which a client otherwise makes at its first call, and return what the server then said of itself.

        Raises:
            PolicyServerError: as in `start_episode`.
        """
        return self._balancer.connect(self._config.connect_timeout_s).info

    @property
    def client_number(self) -> int | None:
        """A number, from 0, that no other client of the server has. None before the first handshake."""
        return self._balancer.shared.client_number

    def server_info(self) -> ServerInfo:
        """Ask the server what it is. Of several serving runners the one at the client's address answers, or another if it is away.

        Raises:
            ServerUnavailableError: no answer within `connect_timeout_s`.
        """
        return ask_server_info(self._balancer, self._config.connect_timeout_s)

    def stats(self) -> ServerStats:
        """Ask the server for its counters and its newest training iteration. Those of several serving runners are added up.

        Raises:
            PolicyServerError: as in `start_episode`.
        """
        return ServerStats.merge(self.stats_by_endpoint().values())

    def stats_by_endpoint(self) -> dict[str, ServerStats]:
        """Ask each serving runner for its counters, by its address as this client reaches it. One that is away is left out.

        Raises:
            PolicyServerError: as in `start_episode`.
        """
        return ask_stats(self._balancer, self._config.connect_timeout_s)

    def counters(self) -> ClientCounters:
        """Read what this client did so far, on all serving runners together."""
        shared, episodes = self._balancer.shared, self._episodes
        with shared.lock:
            return ClientCounters(
                episodes_open=len(episodes.open),
                messages_sent=shared.messages_sent,
                rows_waiting=self._balancer.rows_waiting,
                rows_sent=shared.rows_sent,
                rows_answered=shared.rows_answered,
                rows_stale=shared.rows_stale,
                connections=shared.connections,
                episodes_lost=episodes.episodes_lost,
                rewards_dropped=episodes.rewards_dropped,
            )

    def close(self) -> None:
        """End all connections; waiting threads get ClientClosedError. Idempotent.

        Episodes that are still open end as truncated at their last step, the server's `episode_idle_timeout_s` later.
        """
        self._lifetime.end(self)
        self._balancer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _leave_behind(self) -> tuple[object, ...]:
        """Become useless in a fork's child; return the parts, which are the parent's."""
        self._lifetime.end(self)
        parts = self._episodes, self._balancer, self._exchange
        inherited: Any = Inherited(self._lifetime.process)
        self._episodes = self._balancer = self._exchange = inherited
        return parts

    def _negotiated(self) -> NegotiatedSession:
        return self._balancer.session or self._balancer.connect(self._config.connect_timeout_s)

    def _encoded(self, info: Mapping[str, Any] | None) -> str:
        session = self._negotiated() if info else None
        return encoded_info(info, session.max_bytes - session.row_bytes) if info and session else ""

    def _timeout(self, timeout_s: float | None) -> float:
        if timeout_s is None:
            return self._config.action_timeout_s
        if not (math.isfinite(timeout_s) and timeout_s >= 0):
            raise InvalidInputError(
                f"timeout_s: expected a finite number of seconds, at least 0, received {timeout_s!r}", field="timeout_s"
            )
        return timeout_s
