"""The public methods of RLlib's ExternalEnv: they ask the session of an environment that is served, and RLlib's own code for any other.

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

from policyserver.server.external_env.session import EnvironmentSession

_ATTRIBUTE = "_policyserver_session"
_is_making = ContextVar("is_making", default=False)


@contextmanager
def environments_to_serve() -> Iterator[None]:
    """Give the ExternalEnvs that are made in this context sessions, so that their threads may begin before they are served."""
    token = _is_making.set(True)
    try:
        yield
    finally:
        _is_making.reset(token)


def session_of(env: ExternalEnv) -> EnvironmentSession | None:
    """Return the session of an environment; None if it has none."""
    session: EnvironmentSession | None = getattr(env, _ATTRIBUTE, None)
    return session


def make_session(env: ExternalEnv) -> EnvironmentSession:
    """Return the session of an environment; give it one if it has none.

    Raises:
        ValueError: It has begun episodes by RLlib's own code.
    """
    if session_of(env) is None:
        if hasattr(env, _ATTRIBUTE):
            raise ValueError(
                f"environment: expected one that is made when the env runner asks for it, received {type(env).__name__} that has begun "
                "episodes already; make it in the function that is registered"
            )
        setattr(env, _ATTRIBUTE, EnvironmentSession(env))
    session = session_of(env)
    assert session is not None
    return session


def _replace(name: str, served: Callable[..., Any]) -> None:
    rllibs = getattr(ExternalEnv, name)

    @functools.wraps(rllibs)
    def method(self: ExternalEnv, *args: Any, **options: Any) -> Any:
        session = session_of(self)
        if session is not None:
            return served(session, *args, **options)
        self.__dict__.setdefault(_ATTRIBUTE, None)  # RLlib's from now on
        return rllibs(self, *args, **options)

    setattr(ExternalEnv, name, method)


def _start_episode(session: EnvironmentSession, episode_id: Any = None, training_enabled: bool = True) -> Any:
    return session.start_episode(episode_id, training_enabled)


def _log_returns(session: EnvironmentSession, episode_id: Any, reward: Any, info: Any = None) -> None:
    session.log_returns(episode_id, reward, info)


def _replace_init() -> None:
    rllibs = ExternalEnv.__init__

    @functools.wraps(rllibs)
    def init(self: ExternalEnv, *args: Any, **options: Any) -> None:
        rllibs(self, *args, **options)
        if _is_making.get():
            make_session(self)

    ExternalEnv.__init__ = init


_replace_init()
_replace("start_episode", _start_episode)
_replace("get_action", EnvironmentSession.get_action)
_replace("log_action", EnvironmentSession.log_action)
_replace("log_returns", _log_returns)
_replace("end_episode", EnvironmentSession.end_episode)
