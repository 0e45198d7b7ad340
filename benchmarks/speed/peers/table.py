"""What users have otherwise, measured in the same run as this project."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.folders import BUILD
from benchmarks.speed.peers.line_process import line_process
from benchmarks.windows import Window
from tests.ports import free_ports

__all__ = [
    "LEARNER_DEFAULTS",
    "LEARNER_DEFAULTS_GPU",
    "OLD_SERVER",
    "PEERS",
    "RUNNER_LSTM",
    "RUNNER_MLP",
    "MissingError",
    "Peer",
    "learner",
    "log_file",
]

HERE = Path(__file__).parent
OLD_PYTHON = BUILD / "peers" / "policy_server_input" / "bin" / "python"
"""Interpreter of the environment that `make bench-peers` builds."""
OLD_REASON = BUILD / "peers" / "policy_server_input.missing"
"""What `make bench-peers` writes where it cannot build one."""

OLD_SERVER, RUNNER_MLP, RUNNER_LSTM = "policy_server_input", "rllib_runner_mlp", "rllib_runner_lstm"
LEARNER_DEFAULTS, LEARNER_DEFAULTS_GPU = "rllib_learner_defaults", "rllib_learner_defaults_gpu"
CALLERS, EPISODES = 64, 256
CPU, GPU = "cpu", "gpu"


class MissingError(Exception):
    """A peer or a case cannot be measured here; the text says why and what to do."""


@dataclass(frozen=True)
class Peer:
    """Something that a case is held against."""

    says: str
    """What it is and does, in one line for the report."""
    running: Callable[[], AbstractContextManager[Window]]
    """Sets it up; raises MissingError where that is impossible."""


def log_file(name: str) -> Path:
    """Return the file for what a process of the benchmark writes to its standard error."""
    folder = BUILD / "bench" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


@contextmanager
def _old_server() -> Iterator[Window]:
    """Run the old server and its clients in processes of their own environment."""
    if not OLD_PYTHON.exists():
        raise MissingError(OLD_REASON.read_text(encoding="utf-8").strip() if OLD_REASON.exists() else "not built: run `make bench-peers`")
    port = str(free_ports(1)[0])
    server = [str(OLD_PYTHON), str(HERE / "policy_server_input_server.py"), port]
    clients = [str(OLD_PYTHON), str(HERE / "policy_server_input_clients.py"), port, str(CALLERS)]
    with ExitStack() as stack:
        try:
            stack.enter_context(line_process(server, log_file("policy_server_input_server")))
            window = stack.enter_context(line_process(clients, log_file("policy_server_input_clients")))
        except RuntimeError as error:
            raise MissingError(f"it did not start: {error}") from error
        yield window


def _runner(net: str) -> AbstractContextManager[Window]:
    return line_process([sys.executable, "-m", "benchmarks.speed.peers.rllib_runner", net, str(EPISODES)], log_file(f"rllib_runner_{net}"))


def learner(name: str, device: str = CPU) -> AbstractContextManager[Window]:
    """Run one of the learners of `benchmarks.speed.learner` in a process of its own, on the CPU or on a GPU.

    Raises:
        MissingError: There is no GPU that PyTorch could use.
    """
    if device == GPU and (reason := gpu_missing()):
        raise MissingError(reason)
    return line_process([sys.executable, "-m", "benchmarks.speed.learner", name, device], log_file(f"learner_{name}_{device}"))


def gpu_missing() -> str | None:
    """Return why nothing can be measured on a GPU here; None if it can."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA: on a machine with a GPU make .venv without TORCH=cpu"
    return "PyTorch finds no CUDA device: run `make bench` on a machine with a GPU"


PEERS = {
    OLD_SERVER: Peer(
        f"RLlib's PolicyServerInput of Ray 2.9.3 (HTTP, pickle), {CALLERS} threads that each have a PolicyClient; "
        "PPO with a 256-256 net learns, as it cannot be stopped from it",
        _old_server,
    ),
    RUNNER_MLP: Peer(
        f"RLlib's SingleAgentEnvRunner in process, no network: {EPISODES} trivial environments, 256-256 net", partial(_runner, "mlp")
    ),
    RUNNER_LSTM: Peer(f"the same with LSTM 256: {EPISODES} trivial environments", partial(_runner, "lstm")),
    LEARNER_DEFAULTS: Peer(
        "RLlib's learner with RLlib's default settings of PPO on its default net with LSTM (LSTM 256 behind 256-256), on the same steps: "
        "30 epochs of minibatches of 128; the milliseconds are an update's",
        partial(learner, "rllib_defaults"),
    ),
    LEARNER_DEFAULTS_GPU: Peer(
        "RLlib's learner with RLlib's default settings of PPO on its default net with LSTM (LSTM 256 behind 256-256), as "
        "`rllib_learner_defaults`, on the GPU",
        partial(learner, "rllib_defaults", GPU),
    ),
}
