"""docs/benchmarks.md and its plots, made of nothing but the results in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.folders import DOCS
from benchmarks.speed import plots, results
from benchmarks.speed.cases import CASES
from benchmarks.speed.peers.table import PEERS
from benchmarks.speed.report import aligned, details, opponent, table
from benchmarks.speed.sampling_profile import PROFILED

PICTURES = "benchmarks"  # folder beside the page
FINDINGS_TITLE = "## What was tried, and what is next"
FINDINGS = Path(__file__).with_name("findings.md")  # written by hand

HEAD = """# Benchmarks

Written by `make bench` on {dates}; every figure of every window is in `build/bench/CASE.json`.
Machine: {machine}; where it was another one, the line below the table says so.

Server, learner and load generator share the machine; the server is started by command and the load of each window runs in a process of its
own. A case, its peer, its floor and the cases that are held against it take turns in one run, so that the machine's drift favours none of
them. Figures are medians of the rounds, `max ms` is the longest call of all; a ratio is the median of the ratios of the rounds, which are
listed below the table. Latency is taken around the client's call, over every call of a window that begins after a warm-up of 2 s (half a
window, where that is less; in the `open_10000` and `memory` cases over all calls). `busy`: PPO trains on these very steps at the same time;
otherwise the episodes are started with `training_enabled=False`, and everything else is the same. The clients are ones that can't wait for
the learner (`ClientConfig(waits_for_learner=False)`). Net of the `mlp` cases: 256-256 tanh,
`Box(10)` to `Discrete(3)`.

"""

NOTES = """
`memory_first_mb` is what the serving process held more after the first window than before it, `memory_again_mb` what it held more after
each later one than after the one before, the windows of other cases on the same server included. The ids of the newest 100,000 finished
episodes (`finished_remembered`) are among it, until there are so many.

## Floors and peers
A floor is a bare gRPC echo over one bidirectional stream for each caller, each waiting for its answer. A throughput may exceed a floor of
one step a message, as one message of ours may carry the steps of many episodes.

"""

PROFILE_NOTES = """
py-spy's samples of the serving process under a load, learner idle; the folded stacks are in `build/bench/profile_CASE.folded`.
"""


def write(folder: Path, docs: Path | None = None) -> None:
    """Make the page and the plots from the results in `folder`; `docs` is where they go, None the project's own."""
    docs = docs or DOCS
    found = results.read(folder, [case.name for case in CASES])
    made = plots.write(folder, docs / PICTURES)
    profiles = results.read(folder, [f"profile_{name}" for name in PROFILED])
    (docs / "benchmarks.md").write_text(markdown(found, made, profiles), encoding="utf-8")


def markdown(found: Sequence[Mapping[str, Any]], made: Iterable[plots.Plot], profiles: Sequence[Mapping[str, Any]]) -> str:
    """Return the page."""
    dates = "; ".join(dict.fromkeys(str(result["date"]) for result in found))
    machine = Counter(str(result["machine"]) for result in found).most_common(1)[0][0]
    floors = {result["floor"]: result["floor_steps_per_s"] for result in found if "floor" in result}
    lines = [
        HEAD.format(dates=dates, machine=machine) + table(found) + "\n",
        *(details(result, machine) for result in found),
        NOTES.rstrip("\n"),
        "",
    ]
    lines += [f"- echo, {floor}: {steps_per_s:,.0f} steps/s" for floor, steps_per_s in floors.items()]
    lines += [opponent(result, PEERS[result["peer"]].says) for result in found if "peer" in result]
    for plot in made:
        lines += ["", f"## {plot.title}", plot.says, "", f"![{plot.title}]({PICTURES}/{plot.name}.svg)"]
    lines += ["", "## Where the time goes", *_profiles(profiles), "", FINDINGS_TITLE]
    lines += [FINDINGS.read_text(encoding="utf-8").strip()]
    return "\n".join(lines) + "\n"


def _profiles(profiles: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the tables of the functions that take most of the time."""
    if not profiles:
        return ["Not measured: run `make bench` with `--profile`."]
    lines = [PROFILE_NOTES.strip()]
    for profile in profiles:
        lines += ["", f"### {profile['profile']}"]
        if "missing" in profile:
            lines.append(f"Not measured: {profile['missing']}.")
        else:
            rows = [[f"`{name}`", f"{own:.1%}", f"{within:.1%}"] for name, own, within in profile["functions"]]
            spent_s = ", ".join(f"{cpu_s:.1f}" for cpu_s in profile["threads_cpu_s"])
            lines.append(
                f"{profile['samples']:,} samples of the loop's thread, {profile['at_work']:.0%} of them at work, which are 100 % here."
            )
            lines += [
                f"Processor time of the busiest threads, the loop's among them: {spent_s} s.",
                "",
                aligned(["function", "in itself", "with what it calls"], rows),
            ]
    return lines
