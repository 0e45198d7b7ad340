"""What a second serving actor brings, computed from what an action takes of the actors' processors; writes docs/scaling.md.

    python -m benchmarks.cluster.second_actor                # four minutes, as root: on two nodes and on one
    python -m benchmarks.cluster.second_actor --hosts 2      # on a node of its own alone

Two actors serve. By turns of some seconds the same callers have all their episodes at one of them, and spread over both. The processor time
of an actor for an action says how many it could do with a core of its own; that is what is compared, for here two cores have to do for
actors, daemon, clients and Ray. The status tells whether the bar was met.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import datetime
import json
import logging
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil

from benchmarks.cluster.acting_load import Played
from benchmarks.cluster.bed import Bed, bed
from benchmarks.machine import machine
from benchmarks.scaling import run as scaling
from benchmarks.scaling.second_actor import BAR, RESULTS, Load, Measurement, read_results

logger = logging.getLogger("cluster")

SETTINGS = """
[algorithm.training]
train_batch_size_per_learner = 4000
minibatch_size = 256
num_epochs = 6
[algorithm.rl_module.model_config]
fcnet_hiddens = [256, 256]
use_lstm = false
"""
"""Of the server: the net of docs/benchmarks.md."""
LOADS = ((4, 1000), (64, 1))
"""Callers, and episodes of each. The bar is for the first: the others don't fill one actor."""
PAIRS = 8
WINDOW_S = 2.0
_SAMPLE_S = 0.02
_ACTOR = "ray::ExternalEnvRunner"
_END_S = 300.0


class CpuClock:
    """Notes again and again how much processor time some processes have taken."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        """Begin."""
        self._processes = processes
        self._times_s: list[float] = []
        self._cpu_s: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cpu-clock")
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            cpu_s = sum(sum(process.cpu_times()[:2]) for process in self._processes)
            self._times_s.append(time.time())
            self._cpu_s.append(cpu_s)

    def taken_s(self, since_s: float, until_s: float) -> float:
        """Return the processor time taken in a span."""
        return self._at(until_s) - self._at(since_s)

    def _at(self, time_s: float) -> float:
        return self._cpu_s[min(bisect.bisect_left(self._times_s, time_s), len(self._cpu_s) - 1)]

    def stop(self) -> None:
        """End."""
        self._over.set()
        self._thread.join()


def measure(made: Bed, callers: int, episodes_each: int) -> Load:
    """Measure one load on a server that runs."""
    hosts = made.cluster.hosts[1:]
    clocks = [CpuClock([process]) for host in hosts for process in host.processes(_ACTOR)]
    first = made.daemon.addresses()[0]
    output = f"/tmp/windows-{callers}"
    try:
        player = made.play("acting_load", first, callers, episodes_each, PAIRS, WINDOW_S, output)
        if player.wait(_END_S) != 0:
            raise RuntimeError(f"the callers failed:\n{made.said()}\n{made.daemon.text()}")
    finally:
        for clock in clocks:
            clock.stop()
    lines = made.clients.path(output).read_text(encoding="utf-8").splitlines()
    windows = [Played(**json.loads(line)) for line in lines]
    sides = []
    for is_spread in (False, True):
        of_side = [window for window in windows if window.is_spread == is_spread]
        # An actor without episodes of these callers does nothing for them, whatever else it does.
        taken = [sorted((clock.taken_s(each.began_s, each.ended_s) for clock in clocks), reverse=True) for each in of_side]
        server_us = [1e6 * sum(each if is_spread else each[:1]) / window.actions for each, window in zip(taken, of_side, strict=True)]
        client_us = [1e6 * window.client_cpu_s / window.actions for window in of_side]
        rates = [window.actions / (window.ended_s - window.began_s) for window in of_side]
        sides.append(
            Measurement(
                actors=2 if is_spread else 1,
                actions_per_s=float(np.median(rates)),
                p50_ms=float(np.median([window.p50_ms for window in of_side])),
                p99_ms=float(np.median([window.p99_ms for window in of_side])),
                server_us=float(np.median(server_us)),
                client_us=float(np.median(client_us)),
                server_us_of_windows=server_us,
            )
        )
    return Load(callers, episodes_each, *sides)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the page and print; the status is 1 if the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.second_actor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, nargs="+", choices=(1, 2), default=(2, 1), help="nodes that serve (default: 2, then 1)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for serving_hosts in options.hosts:
        _measure_all(serving_hosts)
    scaling.write()
    filling = read_results()[2].loads[0]
    logger.info("the second actor on a node of its own: %.2f times one actor's throughput, %g is asked", filling.times_one, BAR)
    return 0 if filling.times_one >= BAR else 1


def _measure_all(serving_hosts: int) -> None:
    """Measure all loads with both actors on one node or on two, and keep the result."""
    with bed(serving_hosts=serving_hosts, actors=2, settings=SETTINGS) as made:
        loads = [measure(made, *load) for load in LOADS]
        settings = made.settings
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "hosts": serving_hosts,
        "pairs": PAIRS,
        "window_s": WINDOW_S,
        "settings": settings.strip(),
        "loads": [dataclasses.asdict(load) for load in loads],
    }
    RESULTS[serving_hosts].write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for load in loads:
        logger.info("%d nodes, %d callers with %d episodes: %s, %s", serving_hosts, load.callers, load.episodes_each, load.one, load.two)


if __name__ == "__main__":
    sys.exit(main())
