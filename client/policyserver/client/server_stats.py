"""What the server says of itself, and what the client counts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a client needs to know before its first step."""

    protocol_version: int
    """Version of the protocol the server speaks."""
    server_version: str
    """Version of the server program."""
    boot_id: str
    """Made new at every start of the serving process."""
    observation_space: gym.Space[Any]
    """What the server expects as an observation."""
    action_space: gym.Space[Any]
    """What the server gives as an action."""
    endpoints: tuple[str, ...]
    """Addresses of all serving processes of the daemon."""
    max_message_bytes: int
    """Largest message the server reads, bytes."""
    max_rows_per_message: int
    """Largest number of steps in one message."""
    episode_idle_timeout_s: float
    """Seconds after the loss of a client's stream until its episodes end as truncated."""
    weights_seq_no: int
    """Policy version being served."""
    run: str
    """Name of the server's run, the tag `run` of what it records; empty: it has none."""
    instance_id: str
    """What the server calls itself, the same in all its serving processes; empty: nothing."""
    stop_timeout_s: float
    """Longest time an orderly stop of the server takes, seconds; 0: not known."""


@dataclass(frozen=True, slots=True)
class TrainingIteration:
    """One iteration of training, as the daemon logged it. None where the algorithm has no such figure."""

    iteration: int
    """Number of the iteration, from 1, counted on through restarts."""
    weights_seq_no: int
    """Policy version after the iteration."""
    return_mean: float | None
    """Mean return of the episodes that ended during the iteration."""
    loss: float | None
    """The learner's total loss."""
    kl: float | None
    """Mean Kullback-Leibler divergence between the acting and the new policy, nats."""
    entropy: float | None
    """Mean entropy of the policy, nats."""
    steps: int
    """Environment steps the learner trained on, in this iteration."""
    steps_total: int
    """Environment steps the learner trained on since the run began."""
    seconds: float
    """Length of the iteration, waiting for steps included, seconds."""
    learn_seconds: float
    """Length of the learner's update alone, seconds."""
    learner_updates: int
    """Updates of the weights since the run began."""
    checkpoint_path: str
    """Folder of the newest checkpoint on the daemon's machine; empty before the first."""
    staleness_mean: float
    """Mean of (version trained from - version that acted) over this iteration's steps, policy versions."""
    learning_rate: float | None
    """Mean learning rate over the iteration's updates, the policy's where each part of the net has its own."""
    steps_dropped: int = 0
    """Steps that the hand-off dropped since the iteration before, because clients that can't wait were faster than the learner."""


@dataclass(frozen=True, slots=True)
class ServerStats:
    """Counters since the start of the serving process, and the newest training iteration.

    Of several serving runners, `total_of` says what each field means.
    """

    boot_id: str
    """The serving process these counters belong to."""
    uptime_s: float
    """Seconds since the serving process began."""
    clients_connected: int
    """Clients with an open stream."""
    episodes_open: int
    """Episodes the server holds now."""
    episodes_started: int
    """Episodes begun."""
    episodes_finished: int
    """Episodes ended by their clients."""
    episodes_reaped: int
    """Episodes the server ended as truncated because their client was gone."""
    actions: int
    """Actions computed."""
    rows_repeated: int
    """Rows answered from the cache because they had been applied before."""
    rows_refused: int
    """Rows refused with an error."""
    batches: int
    """Forward passes of the net."""
    reward_sum: float
    """Sum of all rewards received, each counted once."""
    steps_completed: int
    """Steps completed: an action and the reward and observation that followed it."""
    steps_handed_off: int
    """Steps handed to the learner."""
    steps_dropped: int
    """Steps the overflow policy of the hand-off dropped."""
    steps_untrained: int
    """Steps of episodes with training switched off."""
    steps_waiting: int
    """Steps that wait for the learner now."""
    weights_seq_no: int
    """Policy version being served."""
    staleness_mean: float
    """Mean of (version served at hand-off - version that acted) over all steps handed off, policy versions."""
    return_mean: float | None
    """Mean return of the newest finished episodes; None while there is none."""
    training: TrainingIteration | None
    """The newest training iteration; None before the first."""
    questions_waiting: int
    """Calls for an action that wait for the learner now."""
    questions_waited: int
    """Calls for an action that had to wait for the learner, until new weights were served."""
    learner_wait_s: float
    """How long these waited, all together, seconds."""
    starts_refused: int = 0
    """Episodes that could not begin, for the server holds as many as it may, or their connection its share."""
    infos_dropped: int = 0
    """Infos left out of their steps, for those that wait for the learner take as many bytes as they may."""
    clients_refused: int = 0
    """Streams that were not taken, for there are as many as there may be."""
    messages_withheld: int = 0
    """Times that a stream was not read for a while, for its client had not taken what was answered before."""


@dataclass(frozen=True, slots=True)
class ClientCounters:
    """What one client did since it was made."""

    episodes_open: int
    """Episodes open now."""
    messages_sent: int
    """Messages with steps."""
    rows_waiting: int
    """Steps that wait to be sent: for a connection, or for a message that is about to leave."""
    rows_sent: int
    """Steps in the messages, those sent again included."""
    rows_answered: int
    """Steps answered, refusals included."""
    connections: int
    """Handshakes made: 1 for each serving runner plus the number of reconnects."""
    episodes_lost: int
    """Episodes that ended because their serving runner died or was restarted."""
    rewards_dropped: int
    """Rewards logged before the first action of their episode, which belong to no action."""


def total_of(stats: Collection[ServerStats]) -> ServerStats:
    """Add up the statistics of several serving runners; those of one are returned as they are.

    Counters are sums; a client that is connected to all runners is counted by each. The boot ids are joined by "+", the uptime is the
    longest, the policy version and the training iteration are the newest. `staleness_mean` is the mean over all steps handed off,
    `return_mean` the mean of the runners' means.

    Raises:
        ValueError: no statistics.
    """
    if len(stats) == 1:
        return next(iter(stats))
    if not stats:
        raise ValueError("stats: expected those of at least one serving runner, received none")
    merged: dict[str, Any] = {
        field.name: sum(getattr(one, field.name) for one in stats) for field in fields(ServerStats) if field.name not in _MERGED
    }
    returns = [one.return_mean for one in stats if one.return_mean is not None]
    handed_off = merged["steps_handed_off"]
    return ServerStats(
        **merged,
        boot_id="+".join(one.boot_id for one in stats),
        uptime_s=max(one.uptime_s for one in stats),
        weights_seq_no=max(one.weights_seq_no for one in stats),
        staleness_mean=sum(one.staleness_mean * one.steps_handed_off for one in stats) / handed_off if handed_off else 0.0,
        return_mean=sum(returns) / len(returns) if returns else None,
        training=max((one.training for one in stats if one.training is not None), key=lambda training: training.iteration, default=None),
    )


_MERGED = frozenset({"boot_id", "uptime_s", "weights_seq_no", "staleness_mean", "return_mean", "training"})
