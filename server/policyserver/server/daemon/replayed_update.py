"""Learns again from a batch of the quarantine, in this process and without a server, to see what the guard says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyserver.common.settings import SettingsError, load
from policyserver.server.config.algorithm import algorithm_config, naming_setting
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError
from policyserver.server.daemon.learning_rates import take_configured_rates
from policyserver.server.daemon.preflight import checkpoint_folder
from policyserver.server.guard.findings import RefusedUpdate
from policyserver.server.guard.quarantine import UnreadableBatchError, read_batch


@dataclass(frozen=True)
class ReplayedUpdate:
    """What came of it."""

    checkpoint: int | None
    """Number of the checkpoint that was learned on from; None: the run has none, and the weights were those that it began with."""
    refused: RefusedUpdate | None
    """What the guard found; None: it lets the update through."""

    def __str__(self) -> str:
        """Say it in one line."""
        origin = f"from checkpoint {self.checkpoint}"
        if self.checkpoint is None:
            origin = "from the weights that the run began with, for it has no whole checkpoint yet"
        found = self.refused
        return f"{origin}: {'the guard lets this update through' if found is None else f'refused ({found.reason}): {found.what}'}"


def replay_update(file: Path, run_folder: Path, checkpoint: int | None = None) -> ReplayedUpdate:
    """Update a learner with a run's settings and a checkpoint's weights and optimizer on a batch that was kept, under the run's guard.

    Nothing of the run changes, and its server may go on meanwhile. Minibatches are drawn anew, so numbers differ from those of the update
    that was refused. Without a checkpoint the learner begins as the run did, by its seed.

    Args:
        file: A file in the folder `quarantine` of the run folder.
        run_folder: Folder of the run.
        checkpoint: Number of the checkpoint to learn on from; the newest whole one by default.

    Raises:
        SettingsError: The file is no kept batch, or there is no such run, or no checkpoint of that number.
        Exception: What RLlib raises of a batch that doesn't fit the configured net.
    """
    toml = run_folder / "server.toml"
    if not toml.is_file():
        raise SettingsError("run_folder", "", f"expected the folder of a run, with a server.toml, received {run_folder}")
    config = load(ServerConfig, toml, {"run_folder": str(run_folder)})
    with naming_setting("file", UnreadableBatchError):
        columns = read_batch(file).columns
    with naming_setting("checkpoint", CheckpointError):
        folder = checkpoint_folder(config, claim=False)
        found = folder.whole(checkpoint) if checkpoint is not None else folder.newest_whole()
    return ReplayedUpdate(found.number if found is not None else None, _update(config, found, columns))


def built_learner(config: ServerConfig, checkpoint: Checkpoint | None) -> Any:
    """Return a learner with the weights and the optimizer of a checkpoint; None: with those that a run begins with."""
    from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, DEFAULT_MODULE_ID
    from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES

    from policyserver.server.runner.env_runner import ExternalEnvRunner

    built = algorithm_config(config, ExternalEnvRunner).copy(copy_frozen=False)
    built.learners(num_learners=0)
    both = built.observation_space, built.action_space
    spaces: dict[str, Any] = {INPUT_ENV_SPACES: both, INPUT_ENV_SINGLE_SPACES: both}
    pipeline = built.build_env_to_module_connector(spaces=spaces)
    learner = built.build_learner(spaces=spaces | {DEFAULT_MODULE_ID: (pipeline.observation_space, built.action_space)})
    if checkpoint is not None:
        learner.restore_from_path(str(checkpoint.path / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER))
    take_configured_rates(learner, steps_total=checkpoint.progress.steps_total if checkpoint is not None else 0)
    return learner


def _update(config: ServerConfig, checkpoint: Checkpoint | None, columns: dict[str, Any]) -> RefusedUpdate | None:
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
    from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, NUM_MODULE_STEPS_TRAINED_LIFETIME

    from policyserver.server.guard.update_guard import install, take_findings

    learner = built_learner(config, checkpoint)
    install(learner, config=config.guard)
    modules = {name: SampleBatch(values, _zero_padded=True) for name, values in columns.items()}  # what is padded has its mask
    steps = max(len(batch) for batch in modules.values())
    minibatches, built = {}, learner.config
    if not learner.module[DEFAULT_MODULE_ID].is_stateful() and (size := getattr(built, "minibatch_size", None)):
        minibatches = {"num_epochs": built.num_epochs, "minibatch_size": min(size, steps)}
    steps_total = checkpoint.progress.steps_total if checkpoint is not None else 0
    steps_so_far = {NUM_ENV_STEPS_SAMPLED_LIFETIME: steps_total, NUM_MODULE_STEPS_TRAINED_LIFETIME: 0}
    learner.update(batch=MultiAgentBatch(modules, env_steps=steps), timesteps=steps_so_far, **minibatches)
    findings = take_findings(learner)
    return findings[-1] if findings else None
