"""How often the guard on learning fires while nothing is wrong, how far from its bounds healthy updates are, and what it costs.

    python -m benchmarks.learning.guard --case PPO --seeds 0 1 2 3 4 --updates 200
    python -m benchmarks.learning.guard --cost

RLlib learns alone, with its own env runner in this process, for the learner is guarded. The guard on the return is on, too: it judges the
episodes that ended after each update, and what it saves counts as saved at once. Prints the configuration, then a line for each seed. The
cost is that of a guarded learner beside one without a guard, which take turns.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import sys
import time
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from benchmarks.learning.cases import CASES, Case, case_of
from policyserver.server.config.algorithm import algorithm_config
from policyserver.server.config.guard_config import GuardConfig
from policyserver.server.daemon.ray_start import RayProcess
from policyserver.server.guard.kept_state import KeptState
from policyserver.server.guard.return_judge import ReturnJudge, ReturnVerdict, exploration_range
from policyserver.server.guard.update_guard import guard_of, install, take_findings

_COPIES = 8
_STEPS = 200
"""Batch of PPO, APPO and IMPALA: a tenth of what their cases have, so that updates are noisier."""
_NETS = (([64, 64], 15), ([1024, 1024], 3))
"""Hidden layers of the nets whose cost is measured, and updates: one whose updates are short, and one whose weights are large."""


class EndedEpisodesRunner(SingleAgentEnvRunner):
    """RLlib's env runner, which notes the return and the policy version of each episode that ends."""

    def sample(self, **arguments: Any) -> list[SingleAgentEpisode]:
        """Sample as RLlib does."""
        samples: list[SingleAgentEpisode] = super().sample(**arguments)
        for chunk in samples:
            self.num_steps += len(chunk)
            self._sums[chunk.id_] = self._sums.get(chunk.id_, 0.0) + chunk.get_return()
            if chunk.is_done:
                self._ended.append((self._sums.pop(chunk.id_), int(self._weights_seq_no)))
        return samples

    def make_env(self) -> None:
        """Make the environments; RLlib calls it once."""
        self._sums: dict[str, float] = {}
        self._ended: list[tuple[float, int]] = []
        self.num_steps = 0
        super().make_env()

    def take_ended(self) -> list[tuple[float, int]]:
        """Return the return and the version of the episodes that ended since the last call."""
        ended, self._ended = self._ended, []
        return ended


@dataclasses.dataclass(frozen=True)
class Healthy:
    """What was seen of the updates of one run."""

    updates: int
    episodes: int
    fired: list[str]
    """What was found, by update that was refused and by roll-back."""
    incumbents: int
    """How often the guard on the return measured what it had saved."""
    returned: float
    """Mean return of its incumbent at the end."""
    largest: dict[str, float]
    """By reason, the largest value that was let through."""
    seconds: float


def config_of(case: Case, seed: int, runner: type[SingleAgentEnvRunner] = SingleAgentEnvRunner) -> Any:
    """Return RLlib's configuration of a case, that steps its environment in this process."""
    batch = {} if case.algorithm in ("DQN", "SAC") else {"train_batch_size_per_learner": _STEPS}
    if case.algorithm == "PPO":
        batch["minibatch_size"] = _STEPS // 4
    training = {**case.tables.get("training", {}), **batch}
    case = dataclasses.replace(case, tables={**case.tables, "training": training})
    config = algorithm_config(case.server_config(seed), runner)
    config.env_config = {}
    fragment = 32 // _COPIES if case.algorithm in ("DQN", "SAC") else "auto" if case.algorithm == "PPO" else _STEPS // _COPIES
    config.environment(case.environment)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=_COPIES, rollout_fragment_length=fragment)
    return config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0)


def healthy_run(case: Case, seed: int, updates: int, guarding: GuardConfig | None = None) -> Healthy:
    """Learn for a number of updates under the guard's defaults, the return looked at, too; Ray must run."""
    guarding = guarding or GuardConfig(on_return=True)
    config = config_of(case, seed, EndedEpisodesRunner)
    algorithm = config.build_algo()
    learner, runner = algorithm.learner_group._learner, algorithm.env_runner
    install(learner, config=guarding)
    guard = guard_of(learner)
    assert guard is not None
    judge = ReturnJudge(guarding.return_episodes, guarding.return_false_alarm, guarding.return_drop)
    epsilon = config.epsilon if case.algorithm == "DQN" else 0.0
    found: list[str] = []
    began, episodes, incumbents = time.monotonic(), 0, 0
    try:
        while learner._weights_seq_no < updates:
            algorithm.train()
            found += [finding.what for finding in take_findings(learner)]
            ended = runner.take_ended()
            episodes += len(ended)
            verdict = judge.add(ended, exploration_range(epsilon, runner.num_steps))
            if verdict is ReturnVerdict.SAVE:
                judge.begin(int(learner._weights_seq_no))
            elif verdict in (ReturnVerdict.REPLACE, ReturnVerdict.KEEP):
                incumbents += 1
            elif verdict is ReturnVerdict.ROLL_BACK:
                found.append(f"version {learner._weights_seq_no}: a mean return of {judge.newest}, the incumbent's was {judge.incumbent}")
                judge.begin_again(int(learner._weights_seq_no))
        returned = judge.incumbent.mean if judge.incumbent is not None else float("nan")
        seconds = time.monotonic() - began
        return Healthy(int(learner._weights_seq_no), episodes, found, incumbents, returned, dict(guard.largest), seconds)
    finally:
        algorithm.stop()


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a guard takes."""

    without_s: float
    """Median processor time of an update without it."""
    guarded_s: float
    kept_bytes: int
    """Copy that an update could be undone from."""
    weights_bytes: int


def cost(hidden: list[int], updates: int) -> Cost:
    """Update a learner of PPO with a guard and one without by turns, on the same steps, in one thread."""
    case = case_of("PPO")
    model = {**case.tables["rl_module"]["model_config"], "fcnet_hiddens": hidden}
    config = config_of(dataclasses.replace(case, tables={**case.tables, "rl_module": {"model_config": model}}), 0)
    runner = SingleAgentEnvRunner(config=config)
    episodes = runner.sample(num_timesteps=_STEPS, random_actions=False)
    learners = [config.build_learner(spaces=runner.get_spaces()) for _ in range(2)]
    runner.stop()
    install(learners[1], config=GuardConfig())
    taken: list[list[float]] = [[], []]
    for _ in range(updates):
        for learner, seconds in zip(learners, taken, strict=True):
            batch = copy.deepcopy(episodes)
            began = time.thread_time()
            learner.update(
                episodes=batch,
                timesteps={"num_env_steps_sampled_lifetime": 0},
                num_epochs=config.num_epochs,
                minibatch_size=config.minibatch_size,
            )
            seconds.append(time.thread_time() - began)
    module = learners[1].module[DEFAULT_MODULE_ID]
    weights = sum(parameter.nbytes for parameter in module.parameters())
    without_s, guarded_s = (statistics.median(seconds) for seconds in taken)
    return Cost(without_s, guarded_s, KeptState(learners[1]).nbytes, weights)


def print_cost() -> None:
    """Print what the guard takes, by net."""
    torch.set_num_threads(1)
    for hidden, updates in _NETS:
        found = cost(hidden, updates)
        sys.stdout.write(
            f"PPO, net {hidden}, {updates} updates each by turns: {1e3 * found.without_s:.1f} ms of processor time without, "
            f"{1e3 * found.guarded_s:.1f} ms guarded, {found.guarded_s / found.without_s:.3f} times; "
            f"weights {found.weights_bytes / 1e6:.2f} MB, kept {found.kept_bytes / 1e6:.2f} MB\n"
        )
        sys.stdout.flush()


def print_healthy(case: Case, seeds: list[int], updates: int) -> None:
    """Run each seed and print what was seen."""
    torch.set_num_threads(1)  # as the server's default has it
    guarding = GuardConfig(on_return=True)
    batch = config_of(case, 0).train_batch_size_per_learner
    sys.stdout.write(f"{case.name}, {case.environment}, batches of {batch} steps; {guarding}\n")
    ray_process = RayProcess()
    ray_process.start(num_cpus=4)
    try:
        for seed in seeds:
            run = healthy_run(case, seed, updates, guarding)
            largest = ", ".join(f"{name} {value:.3g}" for name, value in run.largest.items())
            sys.stdout.write(
                f"{case.name}, seed {seed}: {run.updates} updates, {run.episodes} episodes, fired {len(run.fired)}, "
                f"incumbents {run.incumbents}, the last with a return of {run.returned:.4g}, largest {largest}; {run.seconds:.0f} s\n"
            )
            sys.stdout.writelines(f"  {found}\n" for found in run.fired)
            sys.stdout.flush()
    finally:
        ray_process.stop()


def main() -> None:
    """Run what the command line says and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="PPO", choices=[case.name for case in CASES])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--cost", action="store_true", help="print what the guard costs in place of how often it fires")
    parsed = parser.parse_args()
    if parsed.cost:
        print_cost()
    else:
        print_healthy(case_of(parsed.case), parsed.seeds, parsed.updates)


if __name__ == "__main__":
    main()
