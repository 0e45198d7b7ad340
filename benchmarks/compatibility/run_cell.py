"""Runs one cell of the matrix for real; where that fails, runs RLlib alone with the same settings."""

from __future__ import annotations

import math
import re
import time
import traceback
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from benchmarks.compatibility import own_code
from benchmarks.compatibility.cells import KNOWN_LIMITS, Cell
from benchmarks.compatibility.players import LONGEST_EPISODE_STEPS, Players
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.daemon.training_hooks import DrainingError, TrainingHooks
from policyserver.server.runner.env_runner import ExternalEnvRunner

UPDATES = 2
"""Updates of the learner that a cell has to see."""
LEARNING_TIMEOUT_S = 60.0
_DEFAULT_CONNECTORS = 5


class NotBuiltError(Exception):
    """RLlib built another module than the one that was asked for."""


class NotLearnedError(Exception):
    """Something came of training, but no learning."""


class RandomEnv(gym.Env[Any, Any]):
    """A Gymnasium environment of any spaces, for RLlib's own env runner."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.observation_space, self.action_space = config["observation_space"], config["action_space"]
        self.observation_space.seed(0)
        self._left = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = int(self.np_random.integers(1, LONGEST_EPISODE_STEPS + 1))
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        return self.observation_space.sample(), float(self.np_random.normal()), self._left <= 0, False, {}


def run_cell(cell: Cell) -> dict[str, Any]:
    """Run a cell.

    Returns:
        Its result: `outcome` ("yes", "no" or "not in RLlib"), `seconds`, and what was seen (`evidence`) or the `error`. After an error
        `rllib` is what RLlib does alone with these settings: "works" or its error. If that error is a known limit of RLlib's, its
        explanation is the `limit`, and the outcome is "not in RLlib".
    """
    began = time.monotonic()
    result: dict[str, Any] = {"cell": cell.name}
    try:
        result |= {"evidence": _serve_and_learn(cell), "outcome": "yes"}
    except Exception as error:
        result |= {"outcome": "no", "error": _line(error), "traceback": traceback.format_exc(), "rllib": "works"}
        try:
            _learn_without_us(cell)
        except Exception as theirs:
            result |= {"rllib": _line(theirs), "rllib_traceback": traceback.format_exc()} | _known_limit(theirs)
    return {**result, "seconds": round(time.monotonic() - began, 2)}


def _serve_and_learn(cell: Cell) -> dict[str, Any]:
    """Serve random episodes and learn from them; return what was seen."""
    server_config = cell.server_config()
    algorithm = algorithm_config(server_config, ExternalEnvRunner).build_algo()
    try:
        _check_built(cell, algorithm.env_runner)

        def ask(question: Callable[[Any], Any]) -> Any:
            """Ask the env runner that serves."""
            answers = algorithm.env_runner_group.foreach_env_runner(question, local_env_runner=not cell.row.in_actor)
            if len(answers) != 1:
                raise RuntimeError("the env runner's actor is not there; its error is in the worker's log")
            return answers[0]

        ask(lambda runner: runner.open())
        before = ask(_look)
        players = Players(before["address"], server_config.spaces.observation_space, server_config.spaces.action_space)
        _leave_with(players, algorithm)
        try:
            learned = _learn(algorithm, lambda: players.have_seen(UPDATES))
        except DrainingError:
            players.check()
            raise
        finally:
            players.stop()
        players.check()
        after = ask(_look)
        _check_weights(before["weights"], after["weights"])
        played = players.counts["actions"] + players.counts["actions_logged"]
        if not 0 < after["steps_sampled"] <= played:
            raise NotLearnedError(f"expected some of the {played} steps that were played in the learner, received {after['steps_sampled']}")
        seen = {"versions": sorted(players.versions), "steps_sampled": after["steps_sampled"], "policy": after["policy"]}
        return {**learned, **players.counts, **seen}
    finally:
        algorithm.stop()


def _look(runner: Any) -> dict[str, Any]:
    """Tell how serving goes; runs where the env runner is."""
    return {
        "address": runner.addresses()[0],
        "weights": {name: value.clone() for name, value in runner.module.state_dict().items()},
        "steps_sampled": runner.num_env_steps_sampled_lifetime,
        "policy": type(getattr(runner._policy, "live", runner._policy)).__name__,  # further policies may stand beside it
    }


def _leave_with(players: Players, algorithm: Any) -> None:
    """Have `train()` end when a player has failed; it would wait for more steps for ever."""
    TrainingHooks(algorithm, players.failed)  # in front of calls to actors
    sample = algorithm.env_runner.sample

    def sample_or_leave(**options: Any) -> Any:
        if players.failed.is_set():
            raise DrainingError("a player failed")
        return sample(**options)

    algorithm.env_runner.sample = sample_or_leave


def _learn_without_us(cell: Cell) -> None:
    """Train RLlib's own env runner on a Gymnasium environment, with everything else the same."""
    server_config = cell.server_config()
    config = algorithm_config(server_config, SingleAgentEnvRunner)
    spaces = {"observation_space": server_config.spaces.observation_space, "action_space": server_config.spaces.action_space}
    config.environment(RandomEnv, env_config=spaces)
    config.env_runners(num_env_runners=0)
    algorithm = config.build_algo()
    try:
        _check_built(cell, algorithm.env_runner)
        before = {name: value.clone() for name, value in algorithm.env_runner.module.state_dict().items()}
        _learn(algorithm, lambda: True)
        _check_weights(before, algorithm.env_runner.module.state_dict())
    finally:
        algorithm.stop()


def _learn(algorithm: Any, served: Callable[[], bool]) -> dict[str, Any]:
    """Train until the learner has made its updates and their weights are `served`."""
    deadline = time.monotonic() + LEARNING_TIMEOUT_S
    losses: dict[str, float] = {}
    updates = iterations = 0
    while updates < UPDATES or not served():
        if time.monotonic() > deadline:
            raise NotLearnedError(
                f"expected {UPDATES} updates whose weights are served within {LEARNING_TIMEOUT_S:g} s, received {updates}"
            )
        learner = algorithm.train().get("learners", {}).get(DEFAULT_MODULE_ID, {})
        iterations += 1
        if math.isnan(version := learner.get(WEIGHTS_SEQ_NO, math.nan)):
            continue  # no update in this iteration, and so no figures
        updates = int(version)
        losses |= {key: float(value) for key, value in learner.items() if "loss" in key and np.ndim(value) == 0}
        if bad := [f"{key} = {value}" for key, value in losses.items() if not math.isfinite(value)]:
            raise NotLearnedError(f"expected finite losses, received {', '.join(bad)}")
    if not losses:
        raise NotLearnedError("expected the learner to report its losses, received none")
    return {"updates": updates, "iterations": iterations, "losses": losses}


def _check_built(cell: Cell, runner: Any) -> None:
    """Refuse to go on with something else than the cell is about.

    Raises:
        NotBuiltError: RLlib built another module, without a word.
        AssertionError: Other connectors than this matrix expects.
    """
    module, row = runner.module, cell.row
    connectors = tuple(type(piece).__name__ for piece in runner._env_to_module.connectors[:-_DEFAULT_CONNECTORS])
    assert connectors == row.connectors_built, f"expected the connectors {row.connectors_built}, received {connectors}"
    own = type(module).__module__ == own_code.__name__
    assert own == row.own_module, f"expected a module of one's own: {row.own_module}, received {type(module)}"
    found = sorted(".".join(path) for path, _ in tree.flatten_with_path(module.get_initial_state())) if module.is_stateful() else []
    if found != list(row.state):
        raise NotBuiltError(f"{cell.algorithm}'s state: expected {' '.join(row.state) or 'none'}, built {' '.join(found) or 'none'}")
    convolution = any(isinstance(layer, torch.nn.Conv2d) for layer in module.modules())
    if convolution != row.convolution:
        raise NotBuiltError(f"{cell.algorithm}'s convolution: expected {row.convolution}, built {convolution}")


def _check_weights(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    if bad := [name for name, value in after.items() if not torch.isfinite(value).all()]:
        raise NotLearnedError(f"expected finite weights, received others in {', '.join(bad)}")
    if all(torch.equal(value, before[name]) for name, value in after.items()):
        raise NotLearnedError("expected other weights after learning, received those from before")


def _known_limit(error: BaseException | None) -> dict[str, str]:
    """Find a known limit of RLlib's among an error and those that it came of."""
    while error is not None:
        line = _line(error)
        for pattern, limit in KNOWN_LIMITS.items():
            if re.search(pattern, line):
                return {"outcome": "not in RLlib", "rllib": line, "limit": limit}
        error = error.__cause__ or error.__context__
    return {}


def _line(error: BaseException) -> str:
    """Return an error as one line, the same in each run."""
    text = next(iter(str(error).strip().splitlines()), "")
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return f"{type(error).__name__}: {text[:200]}{'...' if len(text) > 200 else ''}"
