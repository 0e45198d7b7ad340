"""`PolicyServer(env, address, port).serve_forever()`: how an ExternalEnv's `run()` opens the policy to its clients."""

from __future__ import annotations

from ray.rllib.env.external_env import ExternalEnv

from policyserver.server.external_env.rllib_methods import served_environment


class PolicyServer:
    """Serve the policy of the algorithm that an ExternalEnv belongs to.

    Example:
        ```python
        class TradingServing(ExternalEnv):
            def run(self):
                PolicyServer(self, "localhost", 9900).serve_forever()
        ```
    """

    def __init__(self, env: ExternalEnv, address: str, port: int) -> None:
        """Note where to serve.

        Args:
            env: The environment whose `run()` this is called from.
            address: Host name or address to bind.
            port: Port to bind; 0 lets the system choose.
        """
        self._env = env
        self._address = f"{address}:{port}"

    def serve_forever(self) -> None:
        """Serve until the algorithm stops. Blocking.

        Raises:
            RuntimeError: Called outside an algorithm with `config.env_runners(env_runner_cls=ExternalEnvRunner)`.
            OSError: The address can't be bound.
        """
        environment = served_environment(self._env)
        if environment is None or environment.serving_loop is None:
            raise RuntimeError(
                f"PolicyServer({type(self._env).__name__}): expected to be called from run() of an environment that an ExternalEnvRunner "
                "made; set config.env_runners(env_runner_cls=ExternalEnvRunner)"
            )
        environment.serving_loop.bind(self._address)
        environment.serving_loop.wait_stopped()
