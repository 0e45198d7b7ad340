"""Make RLlib's AlgorithmConfig from a ServerConfig, and check every key."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import logging
import math
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from policyserver.common.settings import SettingsError
from policyserver.server.config.algorithm_bounds import check_number
from policyserver.server.config.ignored_settings import refuse_ignored_settings
from policyserver.server.config.link_address import LinkAddress
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.serving_config import ServingConfig
from policyserver.server.config.standard_connectors import add_standard_connectors

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.env.env_runner_group import EnvRunnerGroup

logger = logging.getLogger(__name__)

PLANNED_ENDS = "planned_ends"
"""Attribute of an env runner group: the indices of actors that were ended on purpose, with nothing to lose, and are not back yet."""
_OBJECT_PREFIX = "python:"


def algorithm_config(
    config: ServerConfig,
    env_runner_class: type,
    *,
    driver_link: LinkAddress | None = None,
    log_file: Path | None = None,
    stop_timeout_s: float = 0.0,
) -> AlgorithmConfig:
    """Build the AlgorithmConfig: what serving needs, then the settings of the `[algorithm.*]` tables on top.

    Imports RLlib, so call it after `ray_start` has prepared Ray's environment.

    Args:
        config: The server's configuration.
        env_runner_class: What samples: ExternalEnvRunner, which serves; another to train without serving.
        driver_link: Where the daemon is, see `policyserver.server.processes`.
        log_file: Where the serving actors log, besides the daemon's output.
        stop_timeout_s: Longest time an orderly stop takes, of which clients are told.

    Raises:
        SettingsError: If a table has a key that its AlgorithmConfig method or DefaultModelConfig doesn't know, or RLlib refuses a value.
    """
    import ray.rllib.algorithms as rllib

    built = getattr(rllib, f"{config.algorithm.name}Config")()
    _apply_serving_defaults(built, config, env_runner_class)
    _place(built, config)
    tables = config.algorithm.methods
    serving = ServingConfig(
        config.listen,
        config.episodes,
        config.hand_off,
        config.inference,
        driver_link,
        opens_itself=False,
        most_versions=config.policies.most_versions,
        traffic=config.traffic,
        learns=config.learner.enabled,
        log_level=config.log_level,
        log=config.log,
        log_file=log_file,
        run=config.run,
        instance_id=config.instance_id or uuid.uuid4().hex,
        stop_timeout_s=stop_timeout_s,
    )
    own_module = _own_module(config.algorithm.rl_module)
    if own_module is not None:
        others = {key: value for key, value in tables["rl_module"].items() if key not in ("module_class", "model_config")}
        tables["rl_module"] = {**others, "rl_module_spec": own_module}
    with naming_setting("connectors", ValueError):
        add_standard_connectors(built, config.connectors, config.spaces.observation_space, own_module=own_module is not None)
    environment = tables.setdefault("environment", {})
    environment["env_config"] = {**environment.get("env_config", {}), **serving.to_env_config()}
    for method, table in tables.items():
        _apply(built, method, table)
    recreated = built.callbacks_on_env_runners_recreated
    if recreated is not _open_recreated:  # the user's come after ours
        built.callbacks(on_env_runners_recreated=[_open_recreated, *(recreated if isinstance(recreated, list) else [recreated])])
    with naming_setting("algorithm.environment", ValueError):
        refuse_ignored_settings(built)
    with naming_setting("algorithm", TypeError, ValueError, says="RLlib refuses the configuration: "):
        built.validate()
    return built


_SHAPES_THE_NET = ("dueling", "noisy", "num_atoms", "twin_q")
"""Arguments of `AlgorithmConfig.training` by which DQN's and SAC's nets have other parts."""


def net_settings(config: ServerConfig) -> dict[str, Any]:
    """Return what the net is made of, by dotted key, RLlib's defaults included: weights fit the same net alone."""
    import ray.rllib.algorithms as rllib
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    table = config.algorithm.methods.get("rl_module", {})
    net: dict[str, Any] = dict(table.get("model_config", {}))
    if "module_class" not in table:
        net = {entry.name: getattr(DefaultModelConfig(**net), entry.name) for entry in dataclasses.fields(DefaultModelConfig)}
    settings = {f"algorithm.rl_module.model_config.{name}": value for name, value in net.items()}
    name, training = config.algorithm.name, config.algorithm.methods.get("training", {})
    defaults = getattr(rllib, f"{name}Config")()
    shaping = {key: training.get(key, getattr(defaults, key)) for key in _SHAPES_THE_NET if hasattr(defaults, key)}
    settings |= {f"algorithm.training.{key}": value for key, value in shaping.items()}
    return {"algorithm.name": name, "algorithm.rl_module.module_class": table.get("module_class", "none"), **settings}


@contextlib.contextmanager
def naming_setting(setting: str, *errors: type[Exception], says: str = "") -> Iterator[None]:
    """Raise the errors of a block as a SettingsError that names the setting at fault."""
    try:
        yield
    except errors as error:
        raise SettingsError(setting, "", f"{says}{error}") from error


def check_action_space(config: ServerConfig) -> None:
    """Refuse an action space for which the algorithm has no net; RLlib says so late or not at all.

    Raises:
        SettingsError: It has none.
    """
    name, space = config.algorithm.name, config.spaces.action_space
    kinds = {"DQN": (gym.spaces.Discrete,), "SAC": (gym.spaces.Box, gym.spaces.Discrete)}.get(name)
    if kinds is not None and not isinstance(space, kinds):
        expected = " or a ".join(kind.__name__ for kind in kinds)
        raise SettingsError("spaces.action", "", f"expected a {expected}, which is what {name} takes, received {space}; PPO takes any")


def check_devices(built: AlgorithmConfig) -> None:
    """Refuse GPUs that this machine does not have; RLlib would miss them once its learner is built.

    Raises:
        SettingsError: There are fewer.
    """
    import torch

    wanted, there = built.num_gpus_per_learner * max(built.num_learners, 1), torch.cuda.device_count()
    if wanted > there:  # learners that want a part of one share it
        raise SettingsError(
            "algorithm.learners.num_gpus_per_learner",
            "",
            f"expected at most the GPUs of this machine, {there} that PyTorch {torch.__version__} can use, received "
            f"{built.num_gpus_per_learner:g} for each of {max(built.num_learners, 1)} learners",
        )


def check_net(built: AlgorithmConfig) -> None:
    """Refuse spaces and settings for which RLlib has no net or no connectors; it would say so once its actors run.

    Raises:
        SettingsError: It has none.
    """
    import torch
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES

    if built.env is not None:  # which brings its own spaces
        return
    both = (built.observation_space, built.action_space)
    spaces = {INPUT_ENV_SPACES: both, INPUT_ENV_SINGLE_SPACES: both}
    copied = built.copy(copy_frozen=False)
    text = f"RLlib makes no net for the observation space {both[0]} and the action space {both[1]} with these settings: "
    with naming_setting("spaces", Exception, says=text), torch.random.fork_rng(devices=[]):  # whatever RLlib raises without an encoder
        connector = copied.build_env_to_module_connector(spaces=spaces)
        of_module = (connector.observation_space, built.action_space)
        copied.get_rl_module_spec(spaces=spaces | {DEFAULT_MODULE_ID: of_module}, inference_only=True).build()


def cpu_tickets(config: AlgorithmConfig) -> int:
    """Count the logical CPUs that Ray needs to start all actors of this algorithm.

    The driver takes none, nor does RLlib's server of env runners' states. A Ray of our own starts a worker process for each at once, which
    would be idle for good if it were one too many.
    """
    of_learner = config.num_cpus_per_learner
    learners = config.num_learners * (of_learner if isinstance(of_learner, int | float) else float(not config.num_gpus_per_learner))
    runners = (config.num_env_runners + (config.evaluation_num_env_runners or 0)) * config.num_cpus_per_env_runner
    aggregators = max(config.num_learners, 1) * (config.num_aggregator_actors_per_learner or 0)  # for the daemon's own learner, too
    return math.ceil(float(learners + runners + aggregators))


def _apply_serving_defaults(built: AlgorithmConfig, config: ServerConfig, env_runner_class: type) -> None:
    """Set what online learning from external episodes needs and RLlib's defaults don't give."""
    built.environment(observation_space=config.spaces.observation_space, action_space=config.spaces.action_space)
    built.env_runners(env_runner_cls=env_runner_class, num_env_runners=1, sample_timeout_s=max(60.0, 4.0 * config.hand_off.sample_wait_s))
    built.learners(num_learners=0)  # in the daemon's process
    built.fault_tolerance(
        restart_failed_env_runners=True,
        delay_between_env_runner_restarts_s=0.0,  # RLlib's 60 s would keep the port dead
        env_runner_health_probe_timeout_s=5.0,
        # Learning stands still meanwhile, and what comes after it at an actor waits for it there anyway.
        env_runner_restore_timeout_s=_RESTORE_ELSEWHERE_S if config.ray.joins else 30.0,
    )
    built.callbacks(on_env_runners_recreated=_open_recreated)
    built.debugging(seed=config.seed, log_level="WARN", log_sys_usage=False)


def _place(built: AlgorithmConfig, config: ServerConfig) -> None:
    """Have the actors take the resources that `[ray]` names."""
    if config.ray.serving_resources:
        built.env_runners(custom_resources_per_env_runner=dict(config.ray.serving_resources))
    for name in ("learner_resources", "learner_labels"):
        if getattr(config.ray, name) and not config.algorithm.methods.get("learners", {}).get("num_learners"):
            raise SettingsError(
                f"ray.{name}", "", "expected algorithm.learners.num_learners of at least 1 with it, for the daemon itself learns else"
            )
    if config.ray.learner_resources:
        built.learners(custom_resources_per_learner=dict(config.ray.learner_resources))


def _open_recreated(*, env_runner_group: EnvRunnerGroup, env_runner_indices: list[int], **_: Any) -> None:
    """Let restarted actors serve, now that RLlib has given them the current weights."""
    planned: set[int] = getattr(env_runner_group, PLANNED_ENDS, set())
    if lost := [index for index in env_runner_indices if index not in planned]:
        logger.warning("serving actors %s were restarted: their open episodes and the steps that waited in them are lost", lost)
    planned.difference_update(env_runner_indices)
    # Without a wait: learning would stand still where an actor falls silent now. One that can't listen ends.
    env_runner_group.foreach_env_runner(
        lambda runner: runner.open(), remote_worker_ids=env_runner_indices, local_env_runner=False, timeout_seconds=0.0
    )


def _apply(built: AlgorithmConfig, method_name: str, table: dict[str, Any]) -> None:
    method = getattr(built, method_name)
    known = _keywords(type(built), method_name) - _OLD_STACK.keys()
    arguments = {}
    for key, value in table.items():
        name = f"algorithm.{method_name}.{key}"
        if key in _OLD_STACK:
            raise SettingsError(name, "", f"RLlib's new API stack ignores it; expected {_OLD_STACK[key]} instead")
        if key not in known:
            raise SettingsError(name, "", f"unknown argument of {type(built).__name__}.{method_name}; known: {', '.join(sorted(known))}")
        if method_name == "training":
            _refuse_text(name, value, getattr(built, key, None))
        check_number(method_name, key, value)
        arguments[key] = _model_config(value, name) if key == "model_config" else _resolve(value, name)
    if isinstance(n_step := arguments.get("n_step"), list):
        arguments["n_step"] = tuple(n_step)  # a range to RLlib, which takes no list for one; TOML has no tuples
    with naming_setting(f"algorithm.{method_name}", TypeError, ValueError, says="RLlib refuses it: "):
        method(**arguments)


_RESTORE_ELSEWHERE_S = 2.0
"""How long learning waits until an actor on another machine, which is back, has the newest weights."""
_OLD_STACK = {
    "train_batch_size": "train_batch_size_per_learner",
    "model": "the table [algorithm.rl_module.model_config]",
    "lr_schedule": "a schedule as lr itself, such as [[0, 1e-3], [100000, 1e-4]]",
    "entropy_coeff_schedule": "a schedule as entropy_coeff itself",
}
"""Arguments of the old API stack that RLlib's methods still take, and what stands in their place."""


def _refuse_text(name: str, value: Any, default: Any) -> None:
    """Refuse a text where RLlib's own default is a number: RLlib takes it, and fails in training without naming it."""
    if isinstance(value, str) and not value.startswith(_OBJECT_PREFIX) and type(default) in (int, float):
        raise SettingsError(name, "", f"expected a number, such as RLlib's {default!r}, received {value!r}")


def _keywords(cls: type, method_name: str) -> set[str]:
    """Collect a method's keywords up the class tree (a subclass passes `**kwargs` on), without deprecated ones."""
    names: set[str] = set()
    for owner in cls.__mro__:
        method: Callable[..., Any] | None = owner.__dict__.get(method_name)
        if method is None:
            continue
        parameters = inspect.signature(method).parameters.values()
        named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        names |= {p.name for p in named if p.name != "self" and p.default != _DEPRECATED}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return names


_DEPRECATED = -1  # ray.rllib.utils.deprecation.DEPRECATED_VALUE


def _model_config(table: Any, name: str) -> Any:
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    if not isinstance(table, dict):
        raise SettingsError(name, "", f"expected a table, received {table!r}")
    known = {entry.name for entry in dataclasses.fields(DefaultModelConfig)}
    for key in table:
        if key not in known:
            raise SettingsError(f"{name}.{key}", "", f"unknown field of RLlib's DefaultModelConfig; known: {', '.join(sorted(known))}")
    return DefaultModelConfig(**{key: _resolve(value, f"{name}.{key}") for key, value in table.items()})


def _own_module(table: dict[str, Any]) -> Any:
    """Make the spec of an RLModule that the configuration names by its class; None if it names none."""
    if "module_class" not in table:
        return None
    from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

    name = "algorithm.rl_module.module_class"
    module_class = _resolve(table["module_class"], name)
    if not (isinstance(module_class, type) and issubclass(module_class, RLModule)):
        raise SettingsError(name, "", f'expected an RLModule, as "python:package.module.Class", received {table["module_class"]!r}')
    model_config = _resolve(table.get("model_config", {}), "algorithm.rl_module.model_config")
    return RLModuleSpec(module_class=module_class, model_config=dict(model_config))


def _resolve(value: Any, name: str) -> Any:
    """Replace each text "python:package.module.Name" by that object."""
    if isinstance(value, dict):
        return {key: _resolve(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if not (isinstance(value, str) and value.startswith(_OBJECT_PREFIX)):
        return value
    module, _, attribute = value.removeprefix(_OBJECT_PREFIX).rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        where = "; install the package, or put its folder on PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
        raise SettingsError(name, "", f"expected an importable object, received {value!r} ({error}){where}") from error
