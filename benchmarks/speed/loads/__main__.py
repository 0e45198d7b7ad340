"""Load generators: each runs in a process of its own, apart from the server, and writes one JSON object.

    python -m benchmarks.speed.loads LOAD ADDRESS '{"seconds": 10, ...}'

Latency is taken around the client's call, every call of the measured window counts, and none before it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.speed.loads.many_open import open_many
from benchmarks.speed.loads.memory import finish_many, open_idle
from benchmarks.speed.loads.threads import threads
from benchmarks.speed.loads.vector import vector

LOADS: dict[str, Callable[..., dict[str, Any]]] = {
    "threads": threads,
    "vector": vector,
    "open_many": open_many,
    "open_idle": open_idle,
    "finish_many": finish_many,
}

if __name__ == "__main__":
    name, address, options = sys.argv[1:]
    sys.stdout.write(json.dumps(LOADS[name](address, **json.loads(options))))
