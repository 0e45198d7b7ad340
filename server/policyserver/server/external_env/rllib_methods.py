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
    session = session_of(env)
    if session is None:
        if hasattr(env, _ATTRIBUTE):
            raise ValueError(
                f"environment: expected one that is made when the env runner asks for it, received {type(env).__name__} that has begun "
                "episodes already; make it in the function that is registered"
            )
        session = EnvironmentSession(env)
        setattr(env, _ATTRIBUTE, session)
    return session


def _replace(served: Callable[..., Any]) -> None:
    rllibs = getattr(ExternalEnv, served.__name__)

    @functools.wraps(rllibs)
    def method(self: ExternalEnv, *args: Any, **options: Any) -> Any:
        session = session_of(self)
        if session is not None:
            return served(session, *args, **options)
        self.__dict__.setdefault(_ATTRIBUTE, None)  # RLlib's from now on
        return rllibs(self, *args, **options)

    setattr(ExternalEnv, served.__name__, method)


def _replace_init() -> None:
    rllibs = ExternalEnv.__init__

    @functools.wraps(rllibs)
    def init(self: ExternalEnv, *args: Any, **options: Any) -> None:
        rllibs(self, *args, **options)
        if _is_making.get():
            make_session(self)

    ExternalEnv.__init__ = init


_replace_init()
_session = EnvironmentSession
for _method in (_session.start_episode, _session.get_action, _session.log_action, _session.log_returns, _session.end_episode):
    _replace(_method)
