"""The user's callbacks about episodes, called where RLlib's own env runner calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils import force_list
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

EPISODE_CALLBACKS = CREATED, START, STEP, END = "on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end"


def is_used(name: str, config: AlgorithmConfig, callbacks: Sequence[Any]) -> bool:
    """Tell whether a callback, such as "on_episode_step", does anything.

    `callbacks` are the items of `config.callbacks_class`, or their instances. A factory may make any callback, so it counts.
    """
    classes = (item if isinstance(item, type) else type(item) for item in callbacks)
    return bool(force_list(getattr(config, f"callbacks_{name}"))) or any(
        getattr(cls, name, None) is not getattr(RLlibCallback, name) for cls in classes
    )


class EpisodeCallbacks:
    """Call `on_episode_created`, `_start`, `_step` and `_end`. They run on the loop thread, so they hold up the actions."""

    def __init__(self, config: AlgorithmConfig, objects: Sequence[RLlibCallback], env_runner: Any, env: Any = None) -> None:
        """Find out which callbacks there are.

        The env runner shares `objects`, the instances of `config.callbacks_class`, with its other callbacks. Callbacks get the env runner,
        and the gymnasium environment if there is one, but run on another thread than its methods.
        """
        self._objects, self._env_runner, self._env = list(objects), env_runner, env
        self._functions = {
            name: force_list(getattr(config, f"callbacks_{name}")) for name in EPISODE_CALLBACKS if is_used(name, config, objects)
        }

    def __bool__(self) -> bool:
        """Whether there is any callback about episodes."""
        return bool(self._functions)

    @property
    def reads_chunks(self) -> bool:
        """Whether a callback gets the chunks of an episode that ended."""
        return END in self._functions

    def call(
        self,
        name: str,
        episode: SingleAgentEpisode,
        index: int,
        rl_module: Any,
        metrics: MetricsLogger,
        chunks: Sequence[SingleAgentEpisode] = (),
    ) -> None:
        """Call one callback about an episode's newest chunk; `on_episode_end` gets the chunks before it, too."""
        if name not in self._functions:
            return
        arguments = {"episode": episode, "env_runner": self._env_runner, "metrics_logger": metrics, "env": self._env}
        arguments |= {"rl_module": rl_module, "env_index": index} | ({"prev_episode_chunks": list(chunks)} if name == END else {})
        make_callback(name, callbacks_objects=self._objects, callbacks_functions=self._functions[name], kwargs=arguments)
