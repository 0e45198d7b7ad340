"""Defaults by algorithm, where RLlib's own don't fit online learning from external episodes.

The keys are tables of the configuration's `[algorithm]` section; a key of the file replaces its value here.
"""

from __future__ import annotations

from typing import Any

_Tables = dict[str, dict[str, Any]]

_ASYNCHRONOUS: _Tables = {
    "training": {
        # RLlib asks its env runners for steps and goes on at once (0.0), which takes a core whether there are steps or not. It waits
        # until all of them have answered, so with several this is also what a busy one may lose by an idle one.
        "timeout_s_sampler_manager": 0.2,
        "train_batch_size_per_learner": 2000,
    },
    "env_runners": {"rollout_fragment_length": 250},  # also the length of V-trace's rows; RLlib's 50 are a message each
    "reporting": {"min_time_s_per_iteration": 5},
}

_APPO: _Tables = {
    **_ASYNCHRONOUS,
    "training": {
        **_ASYNCHRONOUS["training"],
        # RLlib's circular buffer, from which each batch is taken twice, looks for one 10,000 times a second while it is empty.
        "use_circular_buffer": False,
        "circular_buffer_num_batches": 1,  # these two still count for the distance of target updates
        "circular_buffer_iterations_per_batch": 1,
        "num_epochs": 2,
    },
}

_FRAGMENT_STEPS = 32


def _replaying(updates_per_step: float, batch_steps: int, capacity_steps: int) -> _Tables:
    """Return the tables of an algorithm that learns from a replay buffer.

    RLlib's default is one update after every single step, each with a call of `sample()`; here a fragment of steps is followed by as
    many updates as belong to it. `training_intensity` is the number of steps replayed for one sampled, but RLlib counts one env runner
    too many: with one serving actor it replays twice as much.
    """
    return {
        "training": {
            "train_batch_size_per_learner": batch_steps,
            "training_intensity": updates_per_step * batch_steps / 2,
            "replay_buffer_config": {"capacity": capacity_steps},
        },
        "env_runners": {"rollout_fragment_length": _FRAGMENT_STEPS},
        "reporting": {"min_time_s_per_iteration": 5},
    }


_DQN = _replaying(updates_per_step=0.25, batch_steps=32, capacity_steps=100_000)
_DQN["training"]["epsilon"] = [(0, 1.0), (20_000, 0.05)]  # by steps sampled
_SAC = _replaying(updates_per_step=1.0, batch_steps=256, capacity_steps=100_000)

DEFAULTS_BY_ALGORITHM: dict[str, _Tables] = {
    "PPO": {
        "training": {
            "lr": 5e-4,
            "train_batch_size_per_learner": 4000,
            "minibatch_size": 512,
            "num_epochs": 6,
            "entropy_coeff": 0.003,
            "grad_clip": 0.5,
        },
        "learners": {"learner_class": "python:policyserver.server.daemon.fused_learner.FusedPPOLearner"},  # learns the same in less time
        "rl_module": {
            "model_config": {"fcnet_hiddens": [64, 64], "vf_share_layers": True, "use_lstm": True, "lstm_cell_size": 64, "max_seq_len": 20}
        },
    },
    "APPO": _APPO,
    "IMPALA": _ASYNCHRONOUS,
    "DQN": _DQN,
    "SAC": _SAC,
}
