"""What a policy needs to know of the rows of a batch."""

from __future__ import annotations

import numpy as np

from policyserver.common.flags import StepFlag
from policyserver.common.spaces import Array
from policyserver.server.episodes.batch import Batch
from policyserver.server.episodes.episode_table import EpisodeTable
from policyserver.server.episodes.masks import any_true
from policyserver.server.episodes.waiting_infos import WaitingInfos
from policyserver.server.policies.policy import DrawKeys, StepRows

_TERMINATED, _END, _DISABLED = int(StepFlag.TERMINATED), int(StepFlag.END), int(StepFlag.TRAINING_DISABLED)


def step_rows(batch: Batch, applied: Array, slots: Array, starts: Array, table: EpisodeTable, waiting_infos: WaitingInfos) -> StepRows:
    """Gather it.

    Args:
        batch: The rows.
        applied: Those that are to be decided, indices.
        slots: The episode of each row of the batch.
        starts: Whether each row of the batch begins its episode.
        table: Knows the episodes.
        waiting_infos: Says for which infos there is room.
    """
    applied_slots, flags, is_new = slots[applied], batch.flags[applied], starts[applied]
    everything = len(applied) == len(batch)
    actions, training, keys = table.actions[applied_slots], table.training[applied_slots], table.draw_keys[applied_slots]
    if any_true(is_new):
        actions[is_new] = 0
        keys[is_new] = [batch.draw_key(index) for index in applied[is_new].tolist()]
        training = np.where(is_new, flags & _DISABLED == 0, training)
    infos = {}
    if any(submission.rows.infos for submission in batch.submissions):
        found = ((place, batch.origin(index).rows.infos.get(int(batch.row[index]))) for place, index in enumerate(applied.tolist()))
        infos = {place: kept for place, info in found if info is not None and (kept := waiting_infos.keep(info)) is not None}
    given, given_actions = batch.given_among(applied)
    return StepRows(
        slots=applied_slots,
        is_new=is_new,
        ends=flags & _END != 0,
        terminated=flags & _TERMINATED != 0,
        training=training,
        rewards=batch.rewards[applied],
        observations=batch.observations if everything else [leaf[applied] for leaf in batch.observations],
        infos=infos,
        actions=actions,
        state=table.states(applied_slots, is_new),
        given=given,
        given_actions=given_actions,
        drawn_by=DrawKeys(keys, batch.sequences[applied]),
    )
