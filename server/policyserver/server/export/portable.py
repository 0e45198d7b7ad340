"""What can be carried away of a trained policy, in parts that every format is written from; what can't be is refused with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from ray.rllib.core.distribution.distribution import Distribution
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchMultiCategorical,
    TorchSquashedGaussian,
)

from policyserver.common.acting.action_form import ActionForm
from policyserver.common.acting.actor_net import ActorNet
from policyserver.server.export.errors import ExportError
from policyserver.server.export.trained_policy import TrainedPolicy
from policyserver.server.policies.connectors.connector_choice import choose
from policyserver.server.policies.module.inference import PolicyNet
from policyserver.server.policies.module.numpy_forward import UnknownPartError, WrittenOut
from policyserver.server.policies.vectorized.mean_std_filter import VectorizedMeanStdFilter
from policyserver.server.policies.vectorized.observation_connectors import VectorizedConnector, VectorizedFlatten
from policyserver.server.policies.vectorized.scale_images import VectorizedScale
from policyserver.v1 import policy_file_pb2 as pb


@dataclass(frozen=True, slots=True)
class PortablePolicy:
    """A policy of RLlib's own parts."""

    trained: TrainedPolicy
    connectors: tuple[VectorizedConnector, ...]
    """What rewrites observations, in order: flattening, scaling, filters."""
    num_frames: int
    """How many of the newest observations the net sees at once."""
    recorded_space: gym.Space[Any]
    """Space of the observations behind the connectors."""
    net: ActorNet
    distribution: int
    """One of `Distribution` of policy_file.proto."""
    epsilon: float
    """With Q-values: the share of actions that is left to chance when exploring."""


_DISTRIBUTIONS = {
    TorchCategorical: pb.DISTRIBUTION_CATEGORICAL,
    TorchMultiCategorical: pb.DISTRIBUTION_MULTI_CATEGORICAL,
    TorchDiagGaussian: pb.DISTRIBUTION_GAUSSIAN,
    TorchSquashedGaussian: pb.DISTRIBUTION_SQUASHED_GAUSSIAN,
}
_KNOWN = (VectorizedFlatten, VectorizedScale, VectorizedMeanStdFilter)


def portable(trained: TrainedPolicy) -> PortablePolicy:
    """Take a policy apart.

    Raises:
        ExportError: It has parts that are not RLlib's own.
    """
    built = trained.built
    form = ActionForm(built.action_space, normalize=built.normalize_actions, clip=built.clip_actions)
    found = choose(built, trained.env_to_module, trained.module_to_env, form)
    if isinstance(found, str):
        raise ExportError(f"expected RLlib's usual connectors, received {found}, whose code a file can't carry")
    if others := [type(connector).__name__ for connector in found.connectors if not isinstance(connector, _KNOWN)]:
        raise ExportError(f"expected connectors of observations alone, received {others[0]}, which needs the step before, too")
    try:
        net = WrittenOut(trained.module).net
    except UnknownPartError as error:
        raise ExportError(f"expected one of RLlib's default nets, received {error}, whose code a file can't carry") from error
    policy_net = PolicyNet(trained.module, explore=True)
    policy_net.count_steps(trained.checkpoint.progress.steps_total)
    policy_net.leave_choice()
    if policy_net.leaves_choice:
        return PortablePolicy(
            trained, found.connectors, found.num_frames, found.recorded_space, net, pb.DISTRIBUTION_Q_VALUES, policy_net.epsilon
        )
    kind = policy_net.distribution_class
    if kind.__module__ == Distribution.__module__:  # RLlib's own subclass, which knows how the inputs are divided
        kind = kind.__base__
    if (distribution := _DISTRIBUTIONS.get(kind)) is None:
        raise ExportError(f"expected one of RLlib's own distributions of actions, received {kind.__name__}")
    return PortablePolicy(trained, found.connectors, found.num_frames, found.recorded_space, net, distribution, 0.0)
