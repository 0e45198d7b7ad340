"""Where the serving process spends its time under a load: py-spy's samples as folded stacks, and the functions with the largest shares.

py-spy is no dependency of this project: it is used where it is on the PATH (`pip install py-spy`), and its absence is said.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.benchmarks.case import Figures
from tests.benchmarks.cases import MLP
from tests.benchmarks.contenders import run_load
from tests.benchmarks.loads.figures import warm_up_s
from tests.benchmarks.servers import Servers

PROFILED: dict[str, tuple[str, dict[str, Any]]] = {
    "threads_64_mlp": ("threads", {"episode_steps": 200, "callers": 64, "training": False}),
    "vector_256_mlp": ("vector", {"episode_steps": 200, "episodes": 256, "training": False}),
}
WINDOW_S = 10.0
RATE_HZ = 250
TOP = 15
MISSING = "py-spy is not on the PATH: install it (`pip install py-spy`) and run `make bench ARGS=--profile`"
_LOAD_STARTS_S = 1.0  # about what the load's process needs for its imports


def profile_case(name: str, folder: Path, seconds: float | None) -> Figures:
    """Put a load on a server, watch the serving process, and write the folded stacks to `folder`.

    The figures of a load that is watched are worth nothing, so this is apart from the measuring.

    Returns:
        `functions`: name, share of the samples in the function itself, share in it and what it calls; or `missing`: why there is none.
    """
    program = shutil.which("py-spy")
    if program is None:
        return {"profile": name, "missing": MISSING}
    load, options = PROFILED[name]
    seconds = seconds or WINDOW_S
    folder.mkdir(parents=True, exist_ok=True)
    stacks, log = folder / f"profile_{name}.folded", folder / f"profile_{name}.log"
    with Servers() as servers, log.open("w", encoding="utf-8") as errors:
        server = servers.running(MLP)
        watched_s = seconds + warm_up_s(seconds) + _LOAD_STARTS_S
        command = [program, "record", "--pid", str(server.process.pid), "--format", "raw", "--output", str(stacks)]
        options_of_recording = ["--duration", str(round(watched_s)), "--rate", str(RATE_HZ), "--function"]
        with subprocess.Popen([*command, *options_of_recording], stdout=errors, stderr=subprocess.STDOUT) as recorder:
            run_load(server, load, options, seconds)
            status = recorder.wait(watched_s + 60)
    if status != 0 or not stacks.exists():
        return {"profile": name, "missing": f"py-spy failed with status {status}: {_last_line(log)}"}
    lines = stacks.read_text(encoding="utf-8").splitlines()
    return {"profile": name, "load": load, "options": options, "window_s": seconds, **shares(lines)}


def shares(folded: Iterable[str]) -> dict[str, Any]:
    """Summarise folded stacks, "outermost;...;innermost count" a line.

    Returns:
        `samples`: how many there are; `functions`: the TOP of them by the share of samples in themselves, each as
        [name, share in itself, share in it and what it calls].
    """
    itself: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in folded:
        stack, _, count = line.rpartition(" ")
        frames = [_readable(frame) for frame in stack.split(";")]
        itself[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    samples = sum(itself.values())
    top = [[name, count / samples, within[name] / samples] for name, count in itself.most_common(TOP)]
    return {"samples": samples, "functions": top}


def _readable(frame: str) -> str:
    """Shorten "function (some/folder/site-packages/package/module.py)" to what a reader needs."""
    return re.sub(r"\(.*(?:site-packages|lib/python[\d.]+)/", "(", frame)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
