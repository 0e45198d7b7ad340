"""The policy server: a process that learns (`daemon/`), processes that serve (`runner/`), what both are made of, and what both use.

Of what is installed, only this needs ray and torch.

Imports `common`, `server.alone`, `server.config`, `server.control.ctl`, `server.daemon`, `server.doctor.doctor`, `server.export`,
`server.external_env.policy_server`, `server.grpc_front.listen_security`, `server.processes.log_setup`,
`server.processes.quick_imports` and `server.runner.env_runner`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policyserver.server.config.serving_config import ListenConfig, ServingConfig
    from policyserver.server.daemon.ray_start import RayProcess
    from policyserver.server.external_env.policy_server import PolicyServer
    from policyserver.server.runner.env_runner import ExternalEnvRunner

__all__ = ["ExternalEnvRunner", "ListenConfig", "PolicyServer", "RayProcess", "ServingConfig"]

_MODULES = {
    "ExternalEnvRunner": "runner.env_runner",
    "ListenConfig": "config.serving_config",
    "PolicyServer": "external_env.policy_server",
    "RayProcess": "daemon.ray_start",
    "ServingConfig": "config.serving_config",
}


def __getattr__(name: str) -> Any:
    """Import a public class when it is first asked for: ray and torch take seconds, and most modules here need neither."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
