"""How the guard on learning judges an update, and what it does about one that it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Interval

from policyserver.common.settings import Config


@dataclass(frozen=True)
class GuardConfig(Config):
    """What is looked at between an update of the learner and its push to serving, and what becomes of an update that is refused."""

    enabled: bool = True
    """Whether updates are looked at: the batch, the loss, the weights and the optimizer's state must be finite, and the change within the
    bounds below. An update that is not so is undone before it is served."""
    max_kl: Annotated[float, Gt(0)] | None = 10.0
    """Largest mean KL divergence of the updated policy from the one before, in nats, on up to 256 observations of its batch. Without
    effect on a net that gives no distribution (DQN). None: no bound."""
    max_move: Annotated[float, Gt(0)] | None = 10.0
    """Farthest that an update may move the weights of an optimizer, in multiples of their size: the root mean square of the change by that
    of the weights, which counts as 0.1 at least. None: no bound."""
    pause_after: Annotated[int, Ge(0)] = 3
    """Refused updates in a row after which learning pauses; `policy-server ctl resume` lets it go on. 0: it never does."""
    quarantine_files: Annotated[int, Ge(0)] = 10
    """Newest batches of refused updates that are kept, in the folder `quarantine` of the run folder."""
    quarantine_bytes: Annotated[int, Ge(0)] = 100_000_000
    """Largest size of that folder; a batch that is larger by itself is not kept."""
    on_return: bool = False
    """Whether the returns of episodes are looked at, too: where they are worse than those of an earlier policy, the incumbent, the server
    goes back to that one's checkpoint. Whole episodes count that were explored in the same range and trained on, without actions of the
    client's own."""
    return_episodes: Annotated[int, Interval(ge=20, le=100)] = 50
    """Episodes by which a policy is measured."""
    return_false_alarm: Annotated[float, Interval(gt=0, le=0.1)] = 1e-4
    """Greatest chance that one incumbent is ever gone back to while no policy after it is worse. From one incumbent to the next there are
    at least twice `return_episodes` episodes, so with the defaults there is on average at most one such roll-back in 1,000,000 episodes."""
    return_drop: Annotated[float, Interval(gt=0, le=1)] = 0.3
    """Least loss of the mean return that counts, as a share of what the incumbent's mean is above the lowest that was measured."""
