"""How often the guard on learning fires while nothing is wrong, how far from its bounds healthy updates are, and what it costs.

    python -m benchmarks.learning.guard --case PPO --seeds 0 1 2 3 4 --updates 200

RLlib learns alone, with its own env runner in this process, for the learner is guarded. Prints a line for each seed, then the cost.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import sys
import time
from typing import Any

from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from benchmarks.learning.cases import CASES, Case, case_of
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.daemon.ray_start import RayProcess
from policyserver.server.guard.update_guard import guard_of, install, take_findings

_COPIES = 8
_STEPS = 200
"""Batch of PPO, APPO and IMPALA: a tenth of what their cases have, so that updates are noisier."""
_COST_UPDATES = 15


@dataclasses.dataclass(frozen=True)
class Healthy:
    """What was seen of the updates of one run."""

    updates: int
    fired: list[str]
    """What was found, by update that was refused."""
    largest: dict[str, float]
    """By reason, the largest value that was let through."""
    seconds: float


def config_of(case: Case, seed: int) -> Any:
    """Return RLlib's configuration of a case, that steps its environment in this process."""
    batch = {} if case.algorithm in ("DQN", "SAC") else {"train_batch_size_per_learner": _STEPS}
    if case.algorithm == "PPO":
        batch["minibatch_size"] = _STEPS // 4
    training = {**case.tables.get("training", {}), **batch}
    case = dataclasses.replace(case, tables={**case.tables, "training": training})
    config = algorithm_config(case.server_config(seed), SingleAgentEnvRunner)
    config.env_config = {}
    fragment = 32 // _COPIES if case.algorithm in ("DQN", "SAC") else "auto" if case.algorithm == "PPO" else _STEPS // _COPIES
    config.environment(case.environment)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=_COPIES, rollout_fragment_length=fragment)
    return config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0)


def healthy_run(case: Case, seed: int, updates: int) -> Healthy:
    """Learn for a number of updates under the guard's defaults; Ray must run."""
    algorithm = config_of(case, seed).build_algo()
    learner = algorithm.learner_group._learner
    install(learner, config=GuardConfig())
    guard = guard_of(learner)
    assert guard is not None
    found, began = [], time.monotonic()
    try:
        while learner._weights_seq_no < updates:
            algorithm.train()
            found += [finding.what for finding in take_findings(learner)]
        return Healthy(learner._weights_seq_no, found, dict(guard.largest), time.monotonic() - began)
    finally:
        algorithm.stop()


def cost(case: Case) -> tuple[float, float]:
    """Return the median seconds of an update of PPO on the same steps without the guard and with it, taken by turns."""
    config = config_of(case, 0)
    runner = SingleAgentEnvRunner(config=config)
    episodes = runner.sample(num_timesteps=_STEPS, random_actions=False)
    learners = [config.build_learner(spaces=runner.get_spaces()) for _ in range(2)]
    install(learners[1], config=GuardConfig())
    taken: list[list[float]] = [[], []]
    for _ in range(_COST_UPDATES):
        for learner, seconds in zip(learners, taken, strict=True):
            batch = copy.deepcopy(episodes)
            began = time.perf_counter()
            learner.update(
                episodes=batch,
                timesteps={"num_env_steps_sampled_lifetime": 0},
                num_epochs=config.num_epochs,
                minibatch_size=config.minibatch_size,
            )
            seconds.append(time.perf_counter() - began)
    runner.stop()
    without, guarded = (statistics.median(seconds) for seconds in taken)
    return without, guarded


def main() -> None:
    """Run what the command line says and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="PPO", choices=[case.name for case in CASES])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--updates", type=int, default=200)
    parsed = parser.parse_args()
    case = case_of(parsed.case)
    ray_process = RayProcess()
    ray_process.start(num_cpus=4)
    try:
        for seed in parsed.seeds:
            run = healthy_run(case, seed, parsed.updates)
            largest = ", ".join(f"{name} {value:.3g}" for name, value in run.largest.items())
            sys.stdout.write(
                f"{case.name}, seed {seed}: {run.updates} updates, fired {len(run.fired)}, largest {largest}; {run.seconds:.0f} s\n"
            )
            sys.stdout.writelines(f"  {found}\n" for found in run.fired)
            sys.stdout.flush()
        if case.algorithm == "PPO":
            without, guarded = cost(case)
            sys.stdout.write(f"an update: {1e3 * without:.1f} ms without, {1e3 * guarded:.1f} ms guarded, {guarded / without:.3f} times\n")
    finally:
        ray_process.stop()


if __name__ == "__main__":
    main()
