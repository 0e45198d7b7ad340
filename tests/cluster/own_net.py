"""A net that is brought to the actors' nodes; it writes where it is, and what its process was given, to /tmp/own-net-PID."""

from __future__ import annotations

import json
import os
from pathlib import Path

import ray
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule


class OwnNet(DefaultPPOTorchRLModule):  # type: ignore[misc]
    """RLlib's own net, made at home."""

    def setup(self) -> None:
        """Build it."""
        super().setup()
        namespace = ray.get_runtime_context().namespace if ray.is_initialized() else ""
        seen = {"file": __file__, "size": os.environ.get("OWN_NET_SIZE"), "namespace": namespace}
        Path(f"/tmp/own-net-{os.getpid()}").write_text(json.dumps(seen), encoding="utf-8")
