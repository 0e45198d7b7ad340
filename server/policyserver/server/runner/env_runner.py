"""RLlib's env runner for environments that live elsewhere: it serves a policy instead of stepping an environment."""

from __future__ import annotations

import dataclasses
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym
import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.external_env import ExternalEnv
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils import force_list

from policyserver.common.server_stats import TrainingIteration
from policyserver.server.config.ignored_settings import refuse_ignored_settings
from policyserver.server.config.serving_config import ServingConfig
from policyserver.server.episodes.core import EpisodeCore
from policyserver.server.episodes.demand import Demand
from policyserver.server.episodes.segments import EpisodeList, SegmentBlock, episodes_of
from policyserver.server.external_env.rllib_methods import environments_to_serve
from policyserver.server.external_env.thread import ExternalEnvThread, check_external_env
from policyserver.server.grpc_front.client_numbers import numbers_of
from policyserver.server.policies.connectors.episode_callbacks import is_used
from policyserver.server.policies.connectors.policy_choice import make_policy
from policyserver.server.policies.named.named_policies import NamedPolicies
from policyserver.server.policies.vectorized.vectorized_policy import VectorizedPolicy
from policyserver.server.processes import link
from policyserver.server.processes.driver_link import leave_at_once
from policyserver.server.processes.link import Followed
from policyserver.server.processes.log_setup import log_to
from policyserver.server.processes.processor_share import new_session, warn_if_ray_lowered
from policyserver.server.processes.serving_report import ServingReport
from policyserver.server.runner.actor_addresses import ActorAddresses
from policyserver.server.runner.following import follow
from policyserver.server.runner.learner_demand import learner_demand
from policyserver.server.runner.metrics import log_samples, with_hand_off, with_others
from policyserver.server.runner.retirement import Retirement
from policyserver.server.runner.seeding import seeded
from policyserver.server.runner.serving_loop import ServingLoop
from policyserver.server.runner.state import RunnerState
from policyserver.server.runner.traffic_check import refuse_idle_traffic

logger = logging.getLogger(__name__)

_SWITCH_INTERVAL_S = 0.001  # Python's 5 ms would let `sample()` hold up an action for that long


class ExternalEnvRunner(EnvRunner, RunnerState):
    """Serve the policy to external episodes and hand their steps to the learner.

    Set with `config.env_runners(env_runner_cls=ExternalEnvRunner)`; what it needs beside RLlib's settings is the ServingConfig in
    `env_config`. Remote instances serve (instance n of several on the configured port + n - 1); a local one serves only if there are no
    remote ones, and evaluation instances never do. A serving instance answers from a thread of its own, so RLlib's calls and the clients'
    don't wait for each other.

    If the config's environment is an ExternalEnv, its `run()` is started on a thread and decides the address by
    `PolicyServer(self, address, port).serve_forever()`; without an environment the address comes from the ServingConfig.

    References: `ray.rllib.env.single_agent_env_runner.SingleAgentEnvRunner` for the contract.
    """

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        """Build the module and, in a serving instance, start to serve.

        Args:
            config: The algorithm's configuration.
            **kwargs: What RLlib's EnvRunnerGroup passes: worker_index, num_workers, spaces, env_creator, ...

        Raises:
            OSError: The address can't be bound.
            ValueError: The spaces are missing or not supported, or a setting is there that nothing reads.
        """
        self._serving_config = ServingConfig.from_env_config(config.env_config)
        learns_here = self._serving_config.learns and not kwargs.get("worker_index")  # RLlib's learner is in this process
        EnvRunner.__init__(self, config=config if learns_here else seeded(config, kwargs.get("worker_index") or 0), **kwargs)
        self.config.seed = config.seed
        RunnerState.__init__(self)
        refuse_ignored_settings(self.config)  # in the local instance, too: RLlib tells its program only of this one's refusal
        self._index = int(self.worker_index or 0)
        self._waits_for_fragment = False
        self.addresses_of_all = ActorAddresses(self._serving_config, self._index, max(self.config.num_env_runners, 1))
        """Where the serving instances are."""
        self._drains = threading.Event()
        self._stop_following: Callable[[], None] = lambda: None
        self._env_thread: ExternalEnvThread | None = None
        self._callbacks = [make() for make in force_list(self.config.callbacks_class)]
        serves = not self.config.in_evaluation and (self._index > 0 or self.config.num_env_runners == 0)
        if serves and self._index > 0:
            file = self._serving_config.log_file
            there = file is not None and file.parent.is_dir()
            log_to(self._serving_config.log_level, file if there else None, self._serving_config.log)
            if ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:  # the process is ours alone
                new_session()  # before an environment starts processes
        if serves:
            self.env = self._make_external_env(kwargs.get("env_creator"))
        self._spaces = self._find_spaces(kwargs.get("spaces"))
        refuse_idle_traffic(self.config, self._spaces[1], self.get_spaces())
        self._env_to_module = self.config.build_env_to_module_connector(spaces=self.get_spaces())
        self._module_to_env = self.config.build_module_to_env_connector(spaces=self.get_spaces())
        self.module: TorchRLModule = self.config.get_rl_module_spec(spaces=self.get_spaces(), inference_only=True).build()
        if serves:
            self._serve()

    # Serving -------------------------------------------------------------------------------------------------------------------------

    def _make_external_env(self, env_creator: Any) -> ExternalEnv | None:
        if self.config.env is None:
            return None
        context = EnvContext(self.config.env_config, worker_index=self._index, num_workers=self.num_workers)
        with environments_to_serve():
            env = check_external_env(env_creator(context))
        self._call_back("on_environment_created", env=env, env_context=context)
        return env

    def _find_spaces(self, spaces: dict[str, Any] | None) -> tuple[gym.Space[Any], gym.Space[Any]]:
        if self.config.observation_space is not None and self.config.action_space is not None:
            return self.config.observation_space, self.config.action_space
        if self.env is not None:
            return self.env.observation_space, self.env.action_space
        if spaces and INPUT_ENV_SINGLE_SPACES in spaces:
            observation_space, action_space = spaces[INPUT_ENV_SINGLE_SPACES]
            return observation_space, action_space
        raise ValueError("spaces: expected config.environment(observation_space=..., action_space=...), received neither these nor an env")

    def _serve(self) -> None:
        config = self._serving_config
        policy = make_policy(
            self.config,
            self.module,
            self._env_to_module,
            self._module_to_env,
            *self._spaces,
            backend=config.inference.backend,
            callbacks_objects=self._callbacks,
            env_runner=self,
        )
        self._policy = policy = _with_others(policy, config) if isinstance(policy, VectorizedPolicy) else policy
        demand = self._demand = self._find_demand()
        make_core = partial(EpisodeCore, policy, *self._spaces, config.episodes, config.hand_off, demand)
        loop = self._serving_loop = ServingLoop(make_core, *self._spaces, config)
        addresses = self.addresses_of_all
        addresses.has_env = self.env is not None
        addresses.here, loop.advertise = loop.advertised, addresses.advertised
        loop.endpoints, loop.loads = addresses.listed, addresses.loads
        loop.client_numbers = numbers_of(max(self._index - 1, 0), addresses.actors)
        loop.start()
        self._machine = addresses.machine()
        retirement = self._retirement = Retirement(self._index, loop, leave_at_once)
        if self.env is not None:
            remembered = config.episodes.finished_remembered
            self._env_thread = ExternalEnvThread(self.env, loop, *self._spaces, finished_remembered=remembered)
        if config.opens_itself:
            self.open()
        elif addresses.is_on_cluster and self.env is None:  # else the daemon keeps the ports of its machine
            addresses.keep_port()
        if self._index > 0:
            self._prepare_process()
        if config.driver_link is not None:
            orders: dict[str, Callable[[Any], None]] = {
                link.INTERRUPT: lambda _: loop.interrupt_sample(),
                link.FULL: loop.call_is_full,
                link.LOG_LEVEL: logging.getLogger().setLevel,
                link.PAUSE: loop.pause_learning,
                link.POLICIES: self.hold_policies,
                link.ENDPOINTS: self.take_endpoints,
                link.ACTORS: self.be_one_of,
                link.SECRETS: loop.sent_secrets.take,
            }
            questions: dict[str, Callable[[Any], Any]] = {
                link.ROLL_BACK: self.roll_back,
                link.HOLD_POLICY: self.hold_policy,
                link.DROP_POLICY: self.drop_policy,
                link.RETIRE: retirement.follow,
                link.STEPS: lambda call_no: (self._index, *loop.call(lambda: loop.core.requests.made_for(call_no))),
            }
            followed = Followed(self.drain, leave_at_once, self._revive, self.report, orders, questions)
            self._stop_following = follow(config.driver_link, followed, self._index, loop)

    def open(self) -> None:
        """Listen on the configured address, or start the environment's `run()`, which decides it. A second call does nothing.

        Raises:
            OSError: The address can't be bound.
        """
        with self._state_lock:
            if self._env_thread is not None:
                self._env_thread.start()
            elif self._serving_loop is not None and not self._serving_loop.addresses:
                self._serving_loop.bind(self.addresses_of_all.own())
                self.addresses_of_all.is_listened_on()

    def take_endpoints(self, loads: Mapping[str, int]) -> None:
        """Take the episodes that are open at each address of a serving instance; on a cluster these are the addresses of all."""
        self.addresses_of_all.take(loads)
        if self._serving_loop is not None:
            self._serving_loop.tell_endpoints()

    def be_one_of(self, actors: int) -> None:
        """Take note that there are so many serving instances, among which the learner's batch is divided."""
        self.config.num_env_runners = self.addresses_of_all.actors = actors
        self._demand = self._find_demand()
        if self._serving_loop is not None:
            self._serving_loop.want(self._demand)
            self._serving_loop.tell_endpoints()

    def _find_demand(self) -> Demand:
        config = self._serving_config
        return learner_demand(self.config, self._index, config.hand_off.batches_ahead, learns=config.learns)

    @property
    def _env_failure(self) -> Exception | None:
        """Why the environment gives no more steps, if it does not."""
        return self._env_thread.failure if self._env_thread is not None else None

    @staticmethod
    def _prepare_process() -> None:
        """Tune this process, which is ours alone, for short pauses."""
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        warn_if_ray_lowered()
        gc.collect()
        gc.freeze()

    def _revive(self, state: dict[str, Any]) -> None:
        """Take over from an instance that died: its weights, then its port."""
        self.revive(state)
        self.open()

    def drain(self, is_final: bool = False) -> None:
        """Refuse new episodes and let `sample` return at once; if it `is_final`, tell callers that the server does not come back."""
        self._drains.set()
        if self._serving_loop is not None:
            self._serving_loop.drain(is_final=is_final)

    def limit_starts(self, most: int) -> None:
        """Start so many episodes in all, in a serving instance; further ones are refused for good."""
        assert self._serving_loop is not None
        self._serving_loop.limit_starts(most)

    def report_training(self, report: TrainingIteration) -> None:
        """Take the newest training iteration, for clients that ask how learning goes."""
        if self._serving_loop is not None:
            self._serving_loop.report_training(report)

    def report(self, told: Mapping[str, int] | None = None) -> ServingReport:
        """Return how a serving instance does, and the episodes that ended, but for those that were `told`: see `UntoldEpisodes`."""
        assert self._serving_loop is not None
        host, node_address = self._machine
        report = dataclasses.replace(
            self._serving_loop.report(told, explores=bool(self.config.explore)),
            number=self._index,
            leaves=self._drains.is_set() or self._retirement.is_under_way,
            host=host,
            node_address=node_address,
        )
        shadow = self._policy.shadow if isinstance(self._policy, NamedPolicies) else None
        if shadow is None:
            return report
        return dataclasses.replace(report, shadow=shadow.name, shadow_actions=self._serving_loop.call(shadow.take))

    def addresses(self) -> list[str]:
        """Return the addresses at which clients reach this instance."""
        return self._serving_loop.advertised() if self._serving_loop is not None else []

    # RLlib's contract ----------------------------------------------------------------------------------------------------------------

    def sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
        call_no: int = 0,
    ) -> list[SingleAgentEpisode] | EpisodeList:
        """Return the steps of RLlib's rollout fragment, as its own runner would give them: all of one policy version with PPO.

        With `batch_mode="complete_episodes"` these are whole episodes.

        Waits until there are enough, but no longer than `hand_off.sample_wait_s`, and then returns nothing: what is recorded goes into one
        later `sample()`, so that episodes are not cut more often than by RLlib. While the server drains, it returns what there is.

        Args:
            num_timesteps: Steps to return instead.
            num_episodes: Not supported: external episodes end by themselves.
            explore: Ignored: serving and sampling are apart, and `config.explore` decides.
            random_actions: Likewise.
            force_reset: Ignored: an external environment can't be reset from here.
            call_no: The daemon's number of this call, which it can end before there are enough steps, see `BatchCollection`.

        Raises:
            ValueError: `num_episodes` was given.
            RuntimeError: The environment's `run()` failed or returned, and all its steps were handed off.
        """
        if num_episodes is not None:
            raise ValueError(f"num_episodes: expected None, for external episodes can't be started from here, received {num_episodes}")
        if self._serving_loop is None:
            return []
        self.pull_weights()
        blocks = self._wait_for_steps(num_timesteps or self._demand.fragment_steps, self._serving_loop, call_no)
        if not blocks and (failure := self._env_failure):
            raise failure
        self._count_steps(self.num_env_steps_sampled_lifetime + sum(block.steps for block in blocks))
        log_samples(self.metrics, self.config, blocks, self._serving_loop.core.statistics)
        if self._index > 0 and not is_used("on_sample_end", self.config, self._callbacks):
            return EpisodeList(blocks)
        samples = episodes_of(blocks)
        self._call_back("on_sample_end", samples=samples)
        return samples

    def _call_back(self, name: str, **arguments: Any) -> None:
        """Call the user's callbacks that are not about episodes; those are the policy's to call."""
        functions = getattr(self.config, f"callbacks_{name}")
        arguments |= {"env_runner": self, "metrics_logger": self.metrics}
        make_callback(name, callbacks_objects=self._callbacks, callbacks_functions=functions, kwargs=arguments)

    def sample_get_state_and_metrics(self) -> Any:
        """Sample, in algorithms that don't wait for their env runners (IMPALA, APPO); see RLlib's method.

        RLlib counts each result as a whole fragment, however little is in it, and an update on nothing is an error that ends `train()`.
        So unlike `sample` this waits until a fragment is there, asking for newer weights meanwhile; after `hand_off.max_segment_age_s`
        any steps will do.
        """
        self._waits_for_fragment = self._env_runner_state_server is not None  # else nothing could tell it that all stop
        return super().sample_get_state_and_metrics()

    def _wait_for_steps(self, want: int, serving_loop: ServingLoop, call_no: int) -> list[SegmentBlock]:
        hand_off = self._serving_config.hand_off
        if not self._waits_for_fragment and serving_loop.takes_old_call():
            return []
        until_s = time.monotonic() + hand_off.max_segment_age_s
        blocks = serving_loop.sample(want, hand_off.sample_wait_s, or_fewer=self._env_failure is not None, call_no=call_no)
        while self._waits_for_fragment and not blocks:
            if self._retirement.leaves:  # it has nothing more to give, and RLlib counts nothing as a fragment: so it gives no answer
                serving_loop.wait_stopped(hand_off.sample_wait_s)
            has_ended = self._drains.is_set() or self._env_failure or serving_loop.wait_stopped(0.0)
            if has_ended or self._weights_pull.group_stops(self._env_runner_state_server):
                break
            self.pull_weights()
            blocks = serving_loop.sample(want, hand_off.sample_wait_s, or_fewer=time.monotonic() > until_s)
        return blocks

    def get_metrics(self) -> Any:
        """Return what was sampled since the last call, in RLlib's form."""
        others = self._where_it_serves(self._policy.take_metrics) if self._policy is not None else {}
        metrics = with_others(self.metrics.reduce(), others)
        if self._index > 0 and self._serving_loop is not None and self.addresses_of_all.is_on_cluster:
            return with_hand_off(metrics, self._serving_loop.boot_id, self._serving_loop.core.steps_handed_off)
        return metrics

    def get_spaces(self) -> dict[str, tuple[gym.Space[Any], gym.Space[Any]]]:
        """Return the spaces under the names that RLlib's connectors and modules look for."""
        observation_space, action_space = self._spaces
        if self._env_to_module is not None:
            observation_space = self._env_to_module.observation_space
        return {INPUT_ENV_SPACES: self._spaces, INPUT_ENV_SINGLE_SPACES: self._spaces, DEFAULT_MODULE_ID: (observation_space, action_space)}

    def assert_healthy(self) -> None:
        """Check that construction went through."""
        assert self.module is not None

    def stop(self) -> None:
        """Stop serving: for good, unless `drain` said whether it is, or there is a daemon, which says so itself."""
        is_final = self._serving_config.driver_link is None and not self._drains.is_set()
        self._drains.set()
        self._stop_following()
        self.addresses_of_all.close()
        if self._serving_loop is not None:
            self._serving_loop.stop(is_final=is_final)
        elif self._env_runner_state_server is not None:
            self._weights_pull.stop_group(self._env_runner_state_server)


def _with_others(policy: VectorizedPolicy, config: ServingConfig) -> NamedPolicies:
    """Let further policies be served beside one."""
    return NamedPolicies(policy, most_versions=config.most_versions, shares=config.traffic.shares, shadow=config.traffic.shadow)
