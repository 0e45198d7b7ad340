"""Three serving nodes and thousands of open episodes: one node is killed, one is cut off and healed. What was acknowledged is recorded.

    python -m benchmarks.cluster.failing_nodes               # 10,000 episodes, 180 s: some five minutes; as root
    python -m benchmarks.cluster.failing_nodes --short       # 300 episodes, 60 s

Daemon, serving actors and clients are on hosts of their own, made of namespaces. The clients' own ledger is compared with the server's
store. The status tells whether all bars were met; build/cluster has the figures, the log of the daemon and what clients wrote.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cluster.bed import Bed, bed
from benchmarks.cluster.judgement import Event, Finding, Went, of_acting, of_double_counts, of_learning, of_process
from benchmarks.cluster.labels import ACTIONS, NUMBERS
from benchmarks.cluster.ledger import UNKNOWN, Ledger, merged
from benchmarks.cluster.open_episodes import CONFIG
from benchmarks.cluster.record import Record, read
from benchmarks.folders import BUILD
from benchmarks.machine import machine
from tests.cluster.hosts import Host, HostProcess

logger = logging.getLogger("cluster")

RESULTS = BUILD / "cluster"
SETTINGS = f"""
[spaces.observation]
type = "Box"
low = -inf
high = inf
shape = [{NUMBERS}]
dtype = "float32"
[spaces.action]
type = "Discrete"
n = {ACTIONS}
[algorithm.training]
train_batch_size_per_learner = 6000
minibatch_size = 1500
num_epochs = 2
[algorithm.rl_module]
module_class = "python:benchmarks.cluster.labelled_net.LabelledNet"
[algorithm.rl_module.model_config]
fcnet_hiddens = [64, 64]
"""
"""Of the server: a net whose actions tell which observation they answer."""
_RAYLET = "ray/raylet/raylet"
_START_S = 120.0
_END_S = 120.0
_LAST_REPORT_S = 2.5


@dataclass(frozen=True)
class Plan:
    """What is played, and what happens when, seconds from the time at which each episode has acted."""

    episodes: int = 10_000
    client_processes: int = 2
    rows_per_call: int = 1_000
    episode_steps: int = 24
    killed_s: float = 20.0
    cut_s: float = 40.0
    healed_s: float = 120.0
    seconds: float = 180.0
    seed: int = 14
    reaches_clients: bool = False
    """Whether the node that is cut off is so from the daemon alone."""


SHORT = Plan(episodes=300, rows_per_call=100, killed_s=8.0, cut_s=16.0, healed_s=40.0, seconds=60.0)


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    plan: Plan
    findings: Sequence[Finding]
    settings: str
    notes: Sequence[str]

    @property
    def missed(self) -> list[Finding]:
        """The findings that don't meet their bars."""
        return [finding for finding in self.findings if not finding.is_met]


def run(plan: Plan, folder: Path) -> Outcome:
    """Play, and judge what came of it; the logs go to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with bed(serving_hosts=3, actors=3, settings=SETTINGS) as made:
        try:
            return _played(plan, made, folder)
        finally:
            (folder / "daemon.log").write_text(made.daemon.text(), encoding="utf-8")
            (folder / "clients.log").write_text(made.said(), encoding="utf-8")


def _played(plan: Plan, made: Bed, folder: Path) -> Outcome:
    head, killed, cut, stays = made.cluster.hosts
    # Clients begin at addresses that go: these are the ones that have to find the others.
    given = [made.addresses_on(host)[0] for host in (killed, cut)]
    each = plan.episodes // plan.client_processes
    outputs = [f"/tmp/ledger-{number}" for number in range(plan.client_processes)]
    players = [
        made.play("open_episodes", given[number % 2], each, plan.rows_per_call, plan.episode_steps, plan.seed + number, output)
        for number, output in enumerate(outputs)
    ]
    _wait_until_all_act(made, players, outputs)
    rejoining = Rejoining(made, cut)
    begin_s = time.time()
    events = []
    for name, at_s, happens in (
        ("killed", plan.killed_s, killed.close),
        ("cut off", plan.cut_s, (lambda: cut.part_from(head)) if plan.reaches_clients else cut.cut),
        ("healed", plan.healed_s, (lambda: cut.unite_with(head)) if plan.reaches_clients else cut.heal),
    ):
        _sleep_until(begin_s + at_s, players, made)
        event_s = time.time()
        happens()
        events.append(Event(name, event_s, time.time()))
        logger.info("%.0f s: %s", event_s - begin_s, name)
    rejoining.start()
    _sleep_until(begin_s + plan.seconds, players, made)
    end_s = time.time()
    rejoining.stop()
    ledger = merged([_ended(made, player, output) for player, output in zip(players, outputs, strict=True)], each)
    time.sleep(_LAST_REPORT_S)
    made.stop()
    ledger.save(folder / "ledger.json")
    record = read(made.copy_store(folder), "run")
    hosts = {host.address: host for host in (killed, cut, stays)}
    how = {killed: Went.at(events[0]), cut: replace(Went.at(events[1]), ended_s=rejoining.ended_s)}
    return _judged(plan, made, ledger, record, events, (begin_s, end_s), rejoining.notes(begin_s), hosts, how)


def _judged(
    plan: Plan,
    made: Bed,
    ledger: Ledger,
    record: Record,
    events: Sequence[Event],
    span_s: tuple[float, float],
    notes: Sequence[str],
    hosts: dict[str, Host],
    how: dict[Host, Went],
) -> Outcome:
    findings = [*of_acting(ledger, plan.episodes, events, span_s[1]), *of_learning(record, events, *span_s)]
    for boot, part in ledger.by_boot.items():
        host = hosts.get(part.target.partition(":")[0])
        went = how.get(host, Went(boot)) if host is not None else Went(boot)
        reports = record.reports.get(boot, ())
        if boot != UNKNOWN:
            is_of_before = not reports or reports[0].time_s < went.time_s
            findings.append(Finding(f"{part.target}: reports of boot {boot[:8]}", f"{len(reports):,}"))
            findings += of_process(ledger, record, replace(went, boot=boot) if is_of_before else Went(boot))
    findings.append(of_double_counts(record))
    steps_per_s = sum(part.actions for part in ledger.by_boot.values()) / (span_s[1] - span_s[0])
    findings.append(Finding("actions, mean over the run", f"{steps_per_s:,.0f} a second"))
    findings.append(Finding("steps trained on", f"{record.steps_trained:,} in {len(record.updates):,} updates"))
    return Outcome(plan, findings, made.settings, notes)


class Rejoining:
    """Has a healed node join the cluster anew, by `ray start` as the guide says, when Ray has ended its processes there."""

    def __init__(self, made: Bed, host: Host) -> None:
        """Prepare; `start` begins."""
        self._made, self._host = made, host
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rejoining")
        self._noted: list[tuple[float, str]] = []

    def start(self) -> None:
        """Begin to look after the node."""
        self._thread.start()

    def stop(self) -> None:
        """End; a node that is joining has joined then."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def ended_s(self) -> float | None:
        """When Ray was seen to have ended its processes on the healed node; None: it has not."""
        return self._noted[0][0] if self._noted else None

    def notes(self, begin_s: float) -> list[str]:
        """Return what happened when."""
        return [f"{time_s - begin_s:.1f} s: {text}" for time_s, text in self._noted]

    def _run(self) -> None:
        while not self._over.wait(1.0):
            if not self._host.processes(_RAYLET):
                self._noted.append((time.time(), "Ray had ended its processes on the healed node"))
                try:
                    self._made.cluster.join(self._host)
                except AssertionError as error:
                    self._noted.append((time.time(), f"ray start failed: {error}"))
                    return
                self._noted.append((time.time(), "the healed node has joined again by ray start"))


def _wait_until_all_act(made: Bed, players: Sequence[HostProcess], outputs: Sequence[str]) -> None:
    deadline_s = time.monotonic() + _START_S
    while not all(made.clients.path(f"{output}.playing").exists() for output in outputs):
        _check(players, made)
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"expected that each episode acts within {_START_S:g} s:\n{made.said()}\n{made.daemon.text()}")
        time.sleep(0.1)


def _sleep_until(time_s: float, players: Sequence[HostProcess], made: Bed) -> None:
    while (left_s := time_s - time.time()) > 0:
        _check(players, made)
        time.sleep(min(1.0, left_s))


def _check(players: Sequence[HostProcess], made: Bed) -> None:
    if any(player.poll() is not None for player in players) or made.daemon.process.poll() is not None:
        raise RuntimeError(f"the clients or the daemon ended before their time:\n{made.said()}\n{made.daemon.text()}")


def _ended(made: Bed, player: HostProcess, output: str) -> Ledger:
    player.send_signal(signal.SIGTERM)
    if (status := player.wait(_END_S)) != 0:
        raise RuntimeError(f"a process of clients ended with status {status}:\n{made.said()}")
    return Ledger.load(made.clients.path(output))


def table(outcome: Outcome) -> str:
    """Write an outcome down, with its settings."""
    rows = [(finding.what, finding.figure, finding.bar, _met(finding)) for finding in outcome.findings]
    lines = ["| what | figure | bar | |", "| --- | --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    said = ["", f"{machine()}; all hosts on it", f"plan: {dataclasses.asdict(outcome.plan)}", f"clients: {CONFIG}", *outcome.notes]
    return "\n".join([*lines, *said, "", "settings of the server:", outcome.settings.strip()])


def _met(finding: Finding) -> str:
    return "" if not finding.bar else "met" if finding.is_met else "MISSED"


def main(arguments: Sequence[str] | None = None) -> int:
    """Play and print; the status is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.failing_nodes", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="the short form, of a minute")
    parser.add_argument("--episodes", type=int, help="open episodes")
    parser.add_argument("--reaches_clients", action="store_true", help="cut a node off from the daemon alone, not from the clients")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    plan = dataclasses.replace(SHORT if options.short else Plan(), reaches_clients=options.reaches_clients)
    if options.episodes:
        plan = dataclasses.replace(plan, episodes=options.episodes)
    outcome = run(plan, RESULTS)
    text = table(outcome)
    (RESULTS / "failing_nodes.md").write_text(text + "\n", encoding="utf-8")
    content: dict[str, Any] = dataclasses.asdict(outcome)
    (RESULTS / "failing_nodes.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 1 if outcome.missed else 0


if __name__ == "__main__":
    sys.exit(main())
