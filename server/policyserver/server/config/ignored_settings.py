"""Settings of RLlib that have no effect here: each is refused with the name of its replacement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policyserver.server.config.serving_config import ServingConfig

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

_OBSOLETE = ("horizon", "soft_horizon", "no_done_at_end")
_NO_INPUT = ("sampler", None)
_SERVING = 'environment(env_config=ServingConfig(ListenConfig("HOST:PORT")).to_env_config()), both of server.config'


def refuse_ignored_settings(config: AlgorithmConfig) -> None:
    """Refuse settings that RLlib ignores by now, and those that only an environment or another env runner would read.

    Raises:
        ValueError: Such a setting is set; the text names it.
    """
    for name in _OBSOLETE:
        if value := getattr(config, name, None):
            raise ValueError(f"{name}: expected none, because the client that plays an episode ends it, received {value!r}")
    if config.input_ not in _NO_INPUT:
        raise ValueError(
            "offline_data(input_=...): expected none, for RLlib's new API stack makes no PolicyServerInput, so nothing would listen, "
            f"received {config.input_!r}; leave it out, and say where to serve by {_SERVING}"
        )
    if config.output is not None:
        raise ValueError(
            f"offline_data(output=...): expected none, for the env runner that serves writes no files, received {config.output!r}"
        )
    strange = sorted(str(key) for key in config.env_config if key not in ServingConfig().to_env_config())
    if config.env is None and strange:
        raise ValueError(
            f"env_config[{strange[0]!r}]: expected no such key, for there is no environment that would read it, received "
            f"{config.env_config.get(strange[0])!r}; say where and how to serve by {_SERVING}"
        )
