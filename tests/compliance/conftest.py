from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from policyserver.server.config.serving_config import HandOffConfig, ListenConfig, ServingConfig
from policyserver.server.runner.env_runner import ExternalEnvRunner
from tests.compliance.external_envs import ACTION, OBSERVATION, Loop, Looping, looping

FrontEnd = str


@pytest.fixture(params=["in process", "over gRPC"])
def front_end(request: pytest.FixtureRequest) -> FrontEnd:
    """Who plays: an ExternalEnv of RLlib's in the serving process, or a client of the policy server."""
    return str(request.param)


MakeRunner = Callable[..., Any]


@pytest.fixture
def played(front_end: FrontEnd, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeRunner]:
    """Make an env runner against which a loop runs; options are those of `AlgorithmConfig.env_runners`, and some of this server's."""
    monkeypatch.setattr(ExternalEnvRunner, "_prepare_process", staticmethod(lambda: None))
    with ExitStack() as stack:

        @contextmanager
        def make(
            loop: Loop, *, hand_off: dict[str, Any] | None = None, rl_module: dict[str, Any] | None = None, **env_runners: Any
        ) -> Iterator[ExternalEnvRunner]:
            serving = ServingConfig(ListenConfig("127.0.0.1:0"), hand_off=HandOffConfig(**{"sample_wait_s": 100.0, **(hand_off or {})}))
            config = (
                PPOConfig()
                .environment(env_config=serving.to_env_config(), observation_space=OBSERVATION, action_space=ACTION)
                .env_runners(num_env_runners=0, **env_runners)
                .rl_module(**(rl_module or {"model_config": DefaultModelConfig(fcnet_hiddens=[8])}))
                .debugging(seed=1, log_level="WARN")
            )
            options = {}
            if front_end == "in process":
                config.environment(env="looping")
                options["env_creator"] = lambda context: Looping(loop)
            runner = ExternalEnvRunner(config=config, worker_index=0, num_workers=0, **options)
            stack.callback(runner.stop)
            with looping(runner, loop):
                yield runner

        yield make
