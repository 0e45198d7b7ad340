"""What passes through the driver for a step, and what that takes of a processor: `python -m benchmarks.cluster.driver [NAME...]`, as root.

Three hosts are made of namespaces: the driver with Ray's head, a serving actor with its clients, and a learner. So all that reaches or
leaves the driver's host is counted by its network interface, and the driver's process does nothing but drive. Processor time and bytes
are told, which other load on the machine does not change, less what an idle server takes in the same time. Figures go to
through_driver.json, from which `python -m benchmarks.scaling.run` writes the page.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import psutil

from benchmarks.machine import machine
from benchmarks.scaling.run import EPISODES
from benchmarks.scaling.through_driver import FIGURES, PassedThrough, write
from tests.cluster.cluster import Cluster, ClusterDaemon, Player, until
from tests.cluster.hosts import Host, hosts

SETTINGS = """
[listen]
address = "node:9900"
tls_certificate_file = "/tmp/tls/certificate"
tls_key_file = "/tmp/tls/key"
token_file = "/tmp/tls/token"
[ray]
serving_resources = {{serving = 1}}
learner_resources = {{learner = 1}}
[spaces.observation]
type = "Box"
low = -inf
high = inf
shape = [10]
[spaces.action]
{action}
[checkpoints]
every_iterations = 0
[algorithm]
name = "{name}"
[algorithm.learners]
num_learners = 1
[algorithm.rl_module.model_config]
fcnet_hiddens = [64, 64]
use_lstm = false
"""
DISCRETE, BOX = 'type = "Discrete"\nn = 3', 'type = "Box"\nlow = -1.0\nhigh = 1.0\nshape = [1]'
NAMES = ("PPO", "DQN", "SAC", "APPO", "IMPALA")
IDLE_S, WARM_VERSIONS, MEASURED_S = 15.0, 3, 40.0
_START_S = 300.0


@dataclass(frozen=True, slots=True)
class _Counted:
    """What the driver's host has counted."""

    at_s: float
    driver_s: float
    """Processor time of the driver's process."""
    ray_s: dict[int, float]
    """Of Ray's own processes beside it, by their number."""
    received: int
    sent: int


def measure(name: str) -> PassedThrough:
    """Measure one algorithm."""
    settings = SETTINGS.format(name=name, action=BOX if name == "SAC" else DISCRETE)
    with hosts(3) as three:
        first, serving, learning = three
        daemon = ClusterDaemon(Cluster(three, learners=[learning]), settings)
        daemon.wait_for("ready after", _START_S)
        time.sleep(5.0)
        before = _count(first, daemon)
        time.sleep(IDLE_S)
        idle = _count(first, daemon)
        player = Player(serving, daemon.addresses()[0], EPISODES, spread=False)
        until(lambda: player.newest()["version"] >= WARM_VERSIONS, _START_S, daemon)
        newest, began = player.newest(), _count(first, daemon)
        time.sleep(MEASURED_S)
        last, ended = player.newest(), _count(first, daemon)
    steps = last["handed_off"] - newest["handed_off"]
    share = (ended.at_s - began.at_s) / (idle.at_s - before.at_s)

    def of_steps(taken: Callable[[_Counted, _Counted], float]) -> float:
        return float(max(0.0, taken(began, ended) - share * taken(before, idle)) / steps)

    return PassedThrough(
        driver_us=1e6 * of_steps(lambda first, second: second.driver_s - first.driver_s),
        ray_us=1e6 * of_steps(_of_ray),
        received_bytes=of_steps(lambda first, second: second.received - first.received),
        sent_bytes=of_steps(lambda first, second: second.sent - first.sent),
        steps=steps,
        updates=last["version"] - newest["version"],
        seconds=ended.at_s - began.at_s,
        idle_driver_share=(idle.driver_s - before.driver_s) / (idle.at_s - before.at_s),
    )


def _count(host: Host, daemon: ClusterDaemon) -> _Counted:
    (driver,) = host.processes("serve --config")[-1:]
    of_ray = {process.pid: _processor_s(process) for name in ("raylet", "gcs_server") for process in host.processes(name)}
    (line,) = [line.partition(":")[2].split() for line in host.run("cat", "/proc/net/dev").splitlines() if "eth0:" in line]
    return _Counted(time.monotonic(), _processor_s(driver), of_ray, int(line[0]), int(line[8]))


def _of_ray(first: _Counted, second: _Counted) -> float:
    return sum(spent_s - first.ray_s[pid] for pid, spent_s in second.ray_s.items() if pid in first.ray_s)


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main(names: Sequence[str]) -> None:
    """Measure some algorithms, all by default; figures of others that are there stay."""
    found = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    for name in names or NAMES:
        sys.stdout.write(f"# {name}\n{SETTINGS.format(name=name, action=BOX if name == 'SAC' else DISCRETE)}\n")
        figures = asdict(measure(name))
        load = " ".join(f"{each:.1f}" for each in psutil.getloadavg())
        sys.stdout.write(f"{json.dumps(figures)}\nload {load}; {machine()}\n")
        found[name] = figures
        write({each: found[each] for each in NAMES if each in found})


if __name__ == "__main__":
    main(sys.argv[1:])
