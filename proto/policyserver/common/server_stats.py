"""What the server says of serving and learning: every figure with its unit, kind and meaning, for both ends and for what is recorded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, TypeVar

from policyserver.common.figures import amount, counter, gauge, mean, merged, newest, text

S = TypeVar("S", bound="ServerStats")
_NO_SUCH_FIGURE = "where the algorithm has none, or made no update in the iteration"


@dataclass(frozen=True, slots=True)
class TrainingIteration:
    """One iteration of training, as the daemon logged it. None where a figure is unset."""

    iteration: Annotated[int, newest("iterations")] = 0
    """Number of the iteration, from 1, counted on through restarts."""
    weights_seq_no: Annotated[int, newest("policy versions")] = 0
    """Policy version after the iteration."""
    return_mean: Annotated[float | None, mean("reward", unset="where none ended during the iteration")] = None
    """RLlib's mean return of the newest episodes that ended, cut ones among them."""
    loss: Annotated[float | None, mean(unset=_NO_SUCH_FIGURE, chart="Loss")] = None
    """Learner's total loss, mean over its modules."""
    kl: Annotated[float | None, mean("nats", unset=_NO_SUCH_FIGURE, chart="KL divergence")] = None
    """Mean Kullback-Leibler divergence between the acting and the new policy."""
    entropy: Annotated[float | None, mean("nats", unset=_NO_SUCH_FIGURE, chart="Entropy")] = None
    """Mean entropy of the policy."""
    steps: Annotated[int, amount("steps")] = 0
    """Steps trained on in this iteration."""
    steps_total: Annotated[int, counter("steps")] = 0
    """Steps trained on since the run began."""
    seconds: Annotated[float, amount("s")] = 0.0
    """Length of the iteration, waiting for steps included."""
    learn_seconds: Annotated[float, amount("s")] = 0.0
    """Length of the learner's update alone."""
    learner_updates: Annotated[int, counter("updates")] = 0
    """Updates of the weights since the run began."""
    checkpoint_path: Annotated[str, text()] = ""
    """Folder of the newest checkpoint on the daemon's machine; empty before the first."""
    staleness_mean: Annotated[float, mean("policy versions", weight="steps")] = 0.0
    """Mean of (version trained from - version that acted) over the iteration's steps."""
    learning_rate: Annotated[float | None, mean(unset=_NO_SUCH_FIGURE, chart="Learning rate")] = None
    """Mean learning rate over the iteration's updates, the policy's where each part of the net has its own."""
    steps_dropped: Annotated[int, amount("steps")] = 0
    """Steps that the hand-off dropped since the iteration before, because clients that can't wait were faster than the learner."""
    steps_behind_0: Annotated[int, amount("steps")] = 0
    """Steps of this iteration that are 0 policy versions behind, from acting to the hand-off."""
    steps_behind_1: Annotated[int, amount("steps")] = 0
    """Steps of this iteration that are 1 policy version behind, from acting to the hand-off."""
    steps_behind_2: Annotated[int, amount("steps")] = 0
    """Steps of this iteration that are 2 or 3 policy versions behind, from acting to the hand-off."""
    steps_behind_4: Annotated[int, amount("steps")] = 0
    """Steps of this iteration that are 4 to 7 policy versions behind, from acting to the hand-off."""
    steps_behind_8: Annotated[int, amount("steps")] = 0
    """Steps of this iteration that are 8 to 15 policy versions behind, from acting to the hand-off."""
    steps_behind_16: Annotated[int, amount("steps")] = 0
    """Steps of this iteration that are 16 or more policy versions behind, from acting to the hand-off."""
    effective_sample_share: Annotated[float | None, mean(unset=_NO_SUCH_FIGURE, chart="Effective sample share")] = None
    """Effective sample size of a minibatch as a share of its steps: (sum w)^2 / (n sum w^2), w the probability of each action under the
    policy that is updated over that under the one that acted. 1 where both are the same. Mean over every eighth or ninth minibatch."""
    steps_undelivered: Annotated[int, amount("steps")] = 0
    """Steps that serving actors handed off and the learner did not get, as far as that became known since the iteration before: the
    connection was cut while they were on their way."""


def named_figures(policy: str, *, greedy: bool) -> str:
    """Return the name under which the episodes of a policy are counted and recorded."""
    return f"{policy} greedy" if greedy else policy


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """What the episodes of one policy came to, since the serving process began."""

    policy: Annotated[str, text()] = ""
    """What episodes call it, with " greedy" behind it for those that asked for the most likely actions, or " shadow" for one whose actions
    are never sent."""
    episodes_finished: Annotated[int, counter("episodes")] = 0
    """Episodes that their clients ended."""
    actions: Annotated[int, counter("actions")] = 0
    """Actions in these; of a shadow those that it computed beside an action that was sent."""
    return_mean: Annotated[float | None, mean("reward", weight="episodes_finished", unset="where none has finished yet")] = None
    """Mean return of the newest that finished, up to 256."""
    length_mean: Annotated[float | None, mean("steps", weight="episodes_finished", unset="where none has finished yet")] = None
    """Mean length of these."""
    agreement: Annotated[float | None, mean(weight="actions", unset="of policies that are no shadow")] = None
    """Share of a shadow's actions that are the ones that were sent."""
    rows_failed: Annotated[int, counter("rows")] = 0
    """Rows that a shadow could not decide, and was left out of."""
    actions_unrecorded: Annotated[int, counter("actions")] = 0
    """Actions of a shadow that are missing in the record, because too many waited."""


@dataclass(slots=True, kw_only=True)
class ServerStats:
    """Counters since the start of the serving process, and the newest training iteration.

    The serving process counts in one of these; a client gets a copy that does not change.
    """

    boot_id: Annotated[str, text()] = ""
    """Serving process the counters belong to; they begin at 0 with each."""
    uptime_s: Annotated[float, newest("s")] = 0.0
    """Time since the serving process began."""
    clients_connected: Annotated[int, gauge("clients")] = 0
    """Clients with an open stream."""
    episodes_open: Annotated[int, gauge("episodes", chart="Open episodes")] = 0
    """Episodes the server holds now."""
    episodes_started: Annotated[int, counter("episodes")] = 0
    """Episodes begun."""
    episodes_finished: Annotated[int, counter("episodes")] = 0
    """Episodes ended by their clients, terminated or truncated."""
    episodes_reaped: Annotated[int, counter("episodes")] = 0
    """Episodes the server ended as truncated because their client was gone."""
    actions: Annotated[int, counter("actions")] = 0
    """Actions computed."""
    rows_repeated: Annotated[int, counter("rows")] = 0
    """Rows answered from the cache because they had been applied before."""
    rows_refused: Annotated[int, counter("rows")] = 0
    """Rows refused with an error."""
    batches: Annotated[int, counter("forward passes")] = 0
    """Forward passes of the net."""
    reward_sum: Annotated[float, counter("reward")] = 0.0
    """Sum of all rewards received, each counted once: the server's own ledger."""
    steps_completed: Annotated[int, counter("steps")] = 0
    """Steps completed: an action and the reward and observation that followed it."""
    steps_handed_off: Annotated[int, counter("steps")] = 0
    """Steps handed to the learner."""
    steps_dropped: Annotated[int, counter("steps")] = 0
    """Steps the overflow policy of the hand-off dropped."""
    steps_untrained: Annotated[int, counter("steps")] = 0
    """Steps of episodes with training switched off, which are never handed off."""
    steps_paused: Annotated[int, counter("steps")] = 0
    """Steps recorded while learning was paused, which are never handed off."""
    steps_cut_off: Annotated[int, counter("steps")] = 0
    """Steps recorded while the daemon was silent, and after that until the learner asked, which are never handed off."""
    daemon_silent_s: Annotated[float, newest("s")] = 0.0
    """How long the daemon has been silent to this serving process, since that was noticed; 0 while it is heard of."""
    steps_waiting: Annotated[int, gauge("steps")] = 0
    """Steps that wait for the learner now."""
    questions_waiting: Annotated[int, gauge("questions", chart="Questions that wait for the learner")] = 0
    """Questions for an action that wait for the learner now."""
    questions_waited: Annotated[int, counter("questions")] = 0
    """Questions for an action that had to wait for the learner, until new weights were served."""
    learner_wait_s: Annotated[float, counter("s")] = 0.0
    """Total time that these waited."""
    weights_seq_no: Annotated[int, newest("policy versions")] = 0
    """Policy version now being served."""
    staleness_mean: Annotated[float, mean("policy versions", weight="steps_handed_off")] = 0.0
    """Mean of (version served at hand-off - version that acted) over all steps handed off."""
    return_mean: Annotated[float | None, mean("reward", unset="where none has finished yet")] = None
    """Mean return of the newest episodes that finished (up to 256), cut ones among them."""
    starts_refused: Annotated[int, counter("episodes")] = 0
    """Episodes that could not begin, because the server or the share of their connection was full."""
    infos_dropped: Annotated[int, counter("infos")] = 0
    """Infos left out of their steps, because the infos that wait for the learner took all the bytes they may."""
    clients_refused: Annotated[int, counter("streams")] = 0
    """Streams that were refused, because as many were open as may be."""
    messages_withheld: Annotated[int, counter("times")] = 0
    """Times that a stream was not read for a while, because its client had not taken earlier answers."""
    actions_given: Annotated[int, counter("actions", chart="Actions that clients chose themselves")] = 0
    """Actions that clients chose themselves instead of asking, those that they replaced among them."""
    actions_overridden: Annotated[int, counter("actions", chart="Actions that clients replaced")] = 0
    """Actions that a client replaced by its own after the server had been asked for them."""
    shadow_rows_failed: Annotated[int, counter("rows", chart="Rows a shadow could not decide")] = 0
    """Rows that a policy which shadows could not decide."""
    training: TrainingIteration | None = None
    """The newest training iteration; None before the first."""
    policies: tuple[PolicyFigures, ...] = ()
    """What the episodes of each policy came to; none before the first has finished."""

    @classmethod
    def merge(cls: type[S], stats: Collection[S]) -> S:
        """Return what several serving runners have together; what one has as it is.

        Counters are sums; a client that is connected to all runners is counted by each. The boot ids are joined by "+", the uptime is the
        longest, the policy version and the training iteration are the newest. `staleness_mean` is the mean over all steps handed off,
        `return_mean` the mean of the runners' means.

        Raises:
            ValueError: no statistics.
        """
        each = list(stats)
        if not each:
            raise ValueError("stats: expected those of at least one serving runner, received none")
        if len(each) == 1:
            return each[0]
        iterations = [one.training for one in each if one.training is not None]
        by_name: dict[str, list[PolicyFigures]] = {}
        for policy in (policy for one in each for policy in one.policies):
            by_name.setdefault(policy.policy, []).append(policy)
        policies = tuple(PolicyFigures(**{**merged(found), "policy": name}) for name, found in by_name.items())
        return cls(**merged(each), training=max(iterations, key=lambda training: training.iteration, default=None), policies=policies)
