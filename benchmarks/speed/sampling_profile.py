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

from benchmarks.speed.cases import MLP
from benchmarks.speed.contenders import run_load
from benchmarks.speed.loads.figures import warm_up_s
from benchmarks.speed.servers import Servers
from benchmarks.windows import Figures
from tests.live_server import Serving

PROFILED: dict[str, tuple[str, dict[str, Any]]] = {
    "threads_64_mlp": ("threads", {"episode_steps": 200, "callers": 64, "training": False}),
    "vector_256_mlp": ("vector", {"episode_steps": 200, "episodes": 256, "training": False}),
}
WINDOW_S = 10.0
RATE_HZ = 250
TOP = 15
THREADS = 4
LOOP = "ServingLoop._run "  # the frame that every stack of the loop's thread has
WAITING = "EpollSelector.select "
MISSING = "py-spy is not on the PATH: install it (`pip install py-spy`) and run `make bench ARGS=--profile`"
_LOAD_STARTS_S = 1.0  # about what the load's process needs for its imports


def profile_case(name: str, servers: Servers, folder: Path, seconds: float | None) -> Figures:
    """Put a load on a server of these, watch the serving process, and write the folded stacks to `folder`.

    The figures of a load that is watched are worth nothing, so this is apart from the measuring.

    Returns:
        What `shares` tells, and `threads_cpu_s`: processor time of each of the busiest threads; or `missing`: why there is no profile.
    """
    program = shutil.which("py-spy")
    if program is None:
        return {"profile": name, "missing": MISSING}
    load, options = PROFILED[name]
    seconds = seconds or WINDOW_S
    folder.mkdir(parents=True, exist_ok=True)
    stacks, log = folder / f"profile_{name}.folded", folder / f"profile_{name}.log"
    server = servers.running(MLP)
    with log.open("w", encoding="utf-8") as errors:
        watched_s = seconds + warm_up_s(seconds) + _LOAD_STARTS_S
        command = [program, "record", "--pid", str(server.process.pid), "--format", "raw", "--output", str(stacks)]
        options_of_recording = ["--duration", str(round(watched_s)), "--rate", str(RATE_HZ), "--function"]
        before = _cpu_s(server)
        with subprocess.Popen([*command, *options_of_recording], stdout=errors, stderr=subprocess.STDOUT) as recorder:
            run_load(server, load, options, seconds)
            spent_s = sorted((cpu_s - before.get(thread, 0.0) for thread, cpu_s in _cpu_s(server).items()), reverse=True)
            status = recorder.wait(watched_s + 60)
    if status != 0 or not stacks.exists():
        return {"profile": name, "missing": f"py-spy failed with status {status}: {_last_line(log)}"}
    lines = stacks.read_text(encoding="utf-8").splitlines()
    return {"profile": name, "load": load, "options": options, "window_s": seconds, "threads_cpu_s": spent_s[:THREADS], **shares(lines)}


def shares(folded: Iterable[str]) -> dict[str, Any]:
    """Summarise the stacks of the loop's thread, "outermost;...;innermost count" a line; others wait, which py-spy cannot always tell.

    Returns:
        `samples`: how many there are of the loop; `at_work`: the share of them in which it did not wait for messages; `functions`: the TOP
        by the share of the samples at work in themselves, each as [name, share in itself, share in it and what it calls].
    """
    samples = 0
    itself: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in folded:
        stack, _, count = line.rpartition(" ")
        frames = [_readable(frame) for frame in stack.split(";")]
        if not any(frame.startswith(LOOP) for frame in frames):
            continue
        samples += int(count)
        if frames[-1].startswith(WAITING):
            continue
        itself[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    working = itself.total()
    top = [[name, count / working, within[name] / working] for name, count in itself.most_common(TOP)]
    return {"samples": samples, "at_work": working / samples if samples else 0.0, "functions": top}


def _cpu_s(server: Serving) -> dict[int, float]:
    """Return the processor time of each thread of the serving process."""
    return {thread.id: thread.user_time + thread.system_time for thread in server.process.threads()}


def _readable(frame: str) -> str:
    """Shorten "function (some/folder/site-packages/package/module.py)" to what a reader needs."""
    return re.sub(r"\(.*(?:site-packages|lib/python[\d.]+)/", "(", frame)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
