"""The public methods of RLlib's ExternalEnv: those of a `ServedEnvironment` where there is one, else RLlib's own code.

RLlib's `to_base_env()` and `poll()`, which lose ends of episodes under load, are never called. The methods are replaced in the class
itself, once, when this module is imported: overrides that call `super()`, calls of `ExternalEnv.get_action(env, ...)` and bound methods
that an environment has saved all come here, and no private name of RLlib's matters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ray.rllib.env.external_env import ExternalEnv

from policyserver.server.external_env.served_environment import ServedEnvironment

_ATTRIBUTE = "_policyserver_served"
_is_making = ContextVar("is_making", default=False)


@contextmanager
def environments_to_serve() -> Iterator[None]:
    """Prepare the ExternalEnvs that are made in this context to be served, so that their threads may begin before they are."""
    token = _is_making.set(True)
    try:
        yield
    finally:
        _is_making.reset(token)


def served_environment(env: ExternalEnv) -> ServedEnvironment | None:
    """Return what an environment is served by; None if it is not served."""
    environment: ServedEnvironment | None = getattr(env, _ATTRIBUTE, None)
    return environment


def make_served(env: ExternalEnv) -> ServedEnvironment:
    """Return what an environment is served by, and make it first if need be.

    Raises:
        ValueError: It has begun episodes by RLlib's own code.
    """
    environment = served_environment(env)
    if environment is None:
        if hasattr(env, _ATTRIBUTE):
            raise ValueError(
                f"environment: expected one that is made when the env runner asks for it, received {type(env).__name__} that has begun "
                "episodes already; make it in the function that is registered"
            )
        environment = ServedEnvironment(env)
        setattr(env, _ATTRIBUTE, environment)
    return environment


def _replace(ours: Callable[..., Any]) -> None:
    rllibs = getattr(ExternalEnv, ours.__name__)

    @functools.wraps(rllibs)
    def method(self: ExternalEnv, *args: Any, **options: Any) -> Any:
        environment = served_environment(self)
        if environment is not None:
            return ours(environment, *args, **options)
        self.__dict__.setdefault(_ATTRIBUTE, None)  # RLlib's from now on
        return rllibs(self, *args, **options)

    setattr(ExternalEnv, ours.__name__, method)


def _replace_init() -> None:
    rllibs = ExternalEnv.__init__

    @functools.wraps(rllibs)
    def init(self: ExternalEnv, *args: Any, **options: Any) -> None:
        rllibs(self, *args, **options)
        if _is_making.get():
            make_served(self)

    ExternalEnv.__init__ = init


_replace_init()
for _name in ("start_episode", "get_action", "log_action", "log_returns", "end_episode"):
    _replace(getattr(ServedEnvironment, _name))
