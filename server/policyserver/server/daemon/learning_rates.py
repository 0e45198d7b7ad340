"""Learning rates after a restore: those of the configuration, from the first update on."""

from __future__ import annotations

from typing import Any


def take_configured_rates(learner: Any, *, steps_total: int) -> None:
    """Have a learner's optimizers learn at the rates that its configuration has after so many steps.

    RLlib restores an optimizer with the checkpoint's rate, and looks at the configuration's after an update only. So the first update would
    still be made at a rate that was changed since, as a rule because it was too high.
    """
    for optimizer, schedule in learner._optimizer_lr_schedules.items():
        learner._set_optimizer_lr(optimizer, lr=schedule.update(timestep=steps_total))
