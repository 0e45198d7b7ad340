"""The guard in the process of a learner: looks at each update before anything reads its result, and undoes one that it refuses.

RLlib replaces non-finite gradients by finite numbers, so weights alone tell nothing: loss, batch, weights and optimizer are looked at.

It hooks into methods that `Learner.update` calls on the learner itself, from its beginning to its end. So it sits at the same place
for all algorithms: in the driver's process and in Ray's learner actors, and with IMPALA and APPO in the learner's own thread, which reads
the weights for the env runners only after `Learner.update` has returned.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import TD_ERROR_KEY

from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.guard.findings import BATCH, KL, LOSS, MOVE, OPTIMIZER, WEIGHTS, RefusedUpdate
from policyserver.server.guard.finite import columns_of, first_not_finite, optimizer_columns
from policyserver.server.guard.kept_state import KeptState
from policyserver.server.guard.policy_change import PolicyProbe

logger = logging.getLogger(__name__)

_SIZE_AT_LEAST = 0.1
"""What the size of weights counts as at least: some begin at zero."""
_MOST_FINDINGS = 8
"""Findings that wait for the driver; the oldest are dropped."""

Refused = tuple[str, str]
"""Reason and what was found."""


class _RefusedError(Exception):
    """The update is refused before it has ended."""


class UpdateGuard:
    """Judges the updates of one learner. Owned by the thread that updates; `take` may be called by another."""

    def __init__(self, learner: Any, config: GuardConfig) -> None:
        """Hook into a learner that is built."""
        self._learner = learner
        self._config = config
        self._updating: int | None = None  # the thread
        self._kept: KeptState | None = None
        self._batch: Any = None
        self._probes: dict[str, PolicyProbe] = {}
        self._probes_policy = config.max_kl is not None
        self._refused: Refused | None = None
        self._is_by_another = self._has_agreed = False
        """Whether another learner refused first, and whether the learners have agreed on this minibatch."""
        self._in_a_row = 0
        self._findings: deque[RefusedUpdate] = deque(maxlen=_MOST_FINDINGS)
        self._measured: dict[str, float] = {}
        self.largest: dict[str, float] = {}
        """By reason, the largest value of the updates that were let through."""
        for name, hook in (
            ("before_gradient_based_update", self._begin),
            ("_make_batch_if_necessary", self._look_at_batch),
            ("_update", self._step),
            ("compute_gradients", self._look_at_loss),
            ("after_gradient_based_update", self._end),
        ):
            original = getattr(learner, name)
            setattr(learner, name, functools.wraps(original)(functools.partial(hook, original)))

    def take(self) -> list[RefusedUpdate]:
        """Return what was refused since the last call."""
        taken = []
        while self._findings:
            taken.append(self._findings.popleft())
        return taken

    # Hooks, in their order -----------------------------------------------------------------------------------------------------------

    def _begin(self, call: Any, **arguments: Any) -> None:
        self._updating = threading.get_ident()
        self._kept, self._batch, self._refused, self._is_by_another = KeptState(self._learner), None, None, False
        self._probes.clear()
        call(**arguments)

    def _look_at_batch(self, call: Any, **arguments: Any) -> Any:
        batch = call(**arguments)
        if self._updating == threading.get_ident():  # with IMPALA RLlib makes it on another thread, and passes it through here then
            self._batch = batch
            found = first_not_finite(columns_of(batch).items(), excluding=Columns.ACTION_DIST_INPUTS) if batch is not None else ""
            self._agree((BATCH, found) if found else None)
        return batch

    def _step(self, call: Any, batch: dict[str, Any]) -> Any:
        """Update on a minibatch, unless the update is refused already."""
        if self._refused is not None:
            return {}, {}, {}
        if not self._probes and self._probes_policy:
            self._probes = self._probes_of(batch)
        self._has_agreed = False
        try:
            return call(batch)
        except _RefusedError:
            return {}, {}, {}
        except Exception as error:
            refused = self._judge_weights()
            if not self._has_agreed and _is_of_group():  # the others wait for it, and RLlib does without a learner that raises
                refused = refused or (LOSS, f"the loss of a minibatch can't be computed: {error!r}")
                self._agree(refused)
            self._refused = refused
            if refused is None:
                self._undo()  # half an update
                raise
            return {}, {}, {}

    def _probes_of(self, batch: dict[str, Any]) -> dict[str, PolicyProbe]:
        try:
            return {name: PolicyProbe(self._learner.module[name], columns) for name, columns in batch.items()}
        except Exception as error:  # a net of the user's own, whose inference wants more than observations and states
            logger.warning("guard.max_kl is without effect: the net can't be asked about the observations of a batch: %r", error)
            self._probes_policy = False
            return {}

    def _look_at_loss(self, call: Any, losses: dict[str, torch.Tensor], **arguments: Any) -> Any:
        """Look at the losses of a minibatch before a gradient is made of them."""
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        bad = [f"{name}: the loss of a minibatch is {loss}" for name, loss in values.items() if not np.isfinite(loss)]
        self._has_agreed = True
        self._agree((LOSS, bad[0]) if bad else None)
        if self._refused is not None:
            raise _RefusedError
        return call(losses, **arguments)

    def _end(self, call: Any, **arguments: Any) -> None:
        if self._refused is None:
            self._agree(self._judge_weights() or self._judge_policy())
        if self._refused is None:
            self._in_a_row = 0
            self.largest |= {name: max(value, self.largest.get(name, 0.0)) for name, value in self._measured.items()}
            self._forget()
            call(**arguments)
            return
        self._in_a_row += 1
        reason, what = self._refused
        version, batch = int(self._learner._weights_seq_no), {} if self._is_by_another else self._batch_to_keep()
        self._findings.append(RefusedUpdate(reason, what, version, self._in_a_row, batch, self._is_by_another))
        self._undo()
        for name in self._learner.module.keys():  # noqa: SIM118 - it is no dict
            self._learner.metrics.delete(name, TD_ERROR_KEY, key_error=False)  # they would be priorities of a replay buffer

    # Judging -------------------------------------------------------------------------------------------------------------------------

    def _judge_weights(self) -> Refused | None:
        """Look at the weights, the optimizers and how far the weights have moved."""
        learner, kept = self._learner, self._kept
        assert kept is not None
        modules = [(name, learner.module[name]) for name in learner.module.keys()]  # noqa: SIM118 - it is no dict
        weights = [
            (f"{name}/{parameter_name}", parameter.detach())
            for name, module in modules
            for parameter_name, parameter in module.named_parameters()
        ]
        if found := first_not_finite(weights):
            return WEIGHTS, found
        if found := first_not_finite(optimizer_columns(learner._named_optimizers)):
            return OPTIMIZER, found
        if (most := self._config.max_move) is not None:
            for name, change, size in kept.moves():
                times = change / max(size, _SIZE_AT_LEAST)
                self._measured[MOVE] = max(times, self._measured.get(MOVE, 0.0))
                if not times <= most:  # nor is a NaN
                    return MOVE, (
                        f"{name}: expected its weights to move by at most {most:g} times their size, received {times:.3g} times: by "
                        f"{change:.3g}, from {size:.3g} (root mean squares)"
                    )
        return None

    def _judge_policy(self) -> Refused | None:
        """Look at how far the policy has moved."""
        most = self._config.max_kl
        for name, probe in self._probes.items():
            if most is None or (kl := probe.kl()) is None:
                continue
            self._measured[KL] = max(kl, self._measured.get(KL, 0.0))
            if kl > most:
                return KL, f"{name}: expected a policy within {most:g} nats (mean KL divergence) of the one before, received {kl:.3g}"
        return None

    def _agree(self, refused: Refused | None) -> None:
        """Refuse an update that this learner refuses, or another one that has the same weights."""
        if _is_of_group():
            flag = torch.tensor(float(refused is not None), device=self._learner.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            if refused is None and bool(flag) and self._refused is None:
                refused, self._is_by_another = (LOSS, "another learner refused the update"), True
        self._refused = self._refused or refused

    def _batch_to_keep(self) -> dict[str, npt.NDArray[Any]]:
        columns = columns_of(self._batch) if self._batch is not None else {}
        if sum(column.nbytes for column in columns.values()) > self._config.quarantine_bytes:
            return {}
        plain = {name: column.float() if column.dtype is torch.bfloat16 else column for name, column in columns.items()}
        return {name: column.detach().cpu().numpy() for name, column in plain.items()}

    def _undo(self) -> None:
        assert self._kept is not None
        self._kept.restore()
        self._forget()

    def _forget(self) -> None:
        self._updating = self._kept = self._batch = None
        self._probes.clear()
        self._measured.clear()


def _is_of_group() -> bool:
    return bool(torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1)


_GUARD = "_update_guard"
"""Attribute of a learner that has one."""


def install(learner: Any, *, config: GuardConfig) -> None:
    """Guard a learner, in its own process."""
    setattr(learner, _GUARD, UpdateGuard(learner, config))


def guard_of(learner: Any) -> UpdateGuard | None:
    """Return the guard of a learner in this process, if it has one."""
    return getattr(learner, _GUARD, None)


def take_findings(learner: Any) -> list[RefusedUpdate]:
    """Return what the guard of a learner has refused since the last call."""
    guard = guard_of(learner)
    return guard.take() if guard is not None else []
