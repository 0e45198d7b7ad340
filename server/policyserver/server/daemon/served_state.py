"""What a serving actor is given of a policy, taken from the algorithm or from a checkpoint: weights, connector states, steps sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policyserver.server.processes.weights_sum import sha256_of_weights

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm import Algorithm

SERVED_FILE = "served.pkl"
"""Name of the file in a checkpoint's folder that has it, so that it can be served without RLlib's own files being read."""
_RL_MODULE = "rl_module"  # RLlib's COMPONENT_RL_MODULE


def served_state(algorithm: Algorithm) -> dict[str, Any]:
    """Return the state that makes an env runner serve what the learner has now."""
    weights = algorithm.learner_group.get_state(components="learner/rl_module", inference_only=True)["learner"]
    runner = algorithm.env_runner
    others = runner.get_state(not_components=_RL_MODULE) if runner is not None else {}
    return {**others, **weights}


def weights_sha256(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a state's weights, in hex."""
    (weights,) = state[_RL_MODULE].values()
    return sha256_of_weights(weights)


def of_serving(algorithm: Algorithm, call: Any, *, wait: bool = True) -> list[Any]:
    """Call a function with each serving env runner: the remote ones, or the local one if it is alone."""
    group = algorithm.env_runner_group
    timeout_s = None if wait else 0.0
    results: list[Any] = group.foreach_env_runner(call, local_env_runner=not group.num_remote_workers(), timeout_seconds=timeout_s)
    return results
