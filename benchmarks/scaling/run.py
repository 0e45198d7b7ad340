"""Writes docs/scaling.md: `python -m benchmarks.scaling.run`, after `make bench` and `python -m benchmarks.cluster.second_actor`."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.folders import DOCS
from benchmarks.scaling import second_actor
from benchmarks.scaling.growth import MOST_BUSY, MOST_OPEN, Load, ceilings, needs
from benchmarks.scaling.measured import Measured, read
from benchmarks.scaling.through_driver import PassedThrough, table
from benchmarks.scaling.through_driver import read as read_through_driver

PAGE = DOCS / "scaling.md"

_HEADER = (
    "| open episodes | actions/s | serving actors | client cores | memory of episodes | driver | learner, CPU | learner, GPU | first limit "
    "| of acting alone |"
)

LOADS = (
    Load(1_000, 1_000),
    Load(10_000, 10_000),
    Load(100_000, 100_000),
    Load(300_000, 300_000),
    Load(1_000_000, 100_000),
    Load(1_000_000, 1_000_000),
)
EPISODES = 64
"""That are played in `benchmarks.cluster.driver`."""


def rendered(measured: Measured, results: Mapping[int, second_actor.Result], through_driver: Mapping[str, PassedThrough]) -> str:
    """Return the page."""
    return f"""# How a server grows

Written by `python -m benchmarks.scaling.run`. **What is measured and what is calculated are apart**: the tables of "Measured" were measured
on one machine of 2 cores that server, learner and clients shared. Everything below them is calculated from the first. No load beyond one
machine was run.

## Measured: one actor

By `make bench` ([Benchmarks](benchmarks.md)), without encryption, over loopback.

| what | figure |
| --- | --- |
| serving process, for an action of a caller with 1,000 episodes, learner busy | {measured.serving_us:.2f} us |
| the same, of 64 callers with one episode each | {measured.serving_lone_us:.1f} us |
| client's process, for an action of a caller with 1,000 episodes at two actors (TLS; next table) | {measured.client_us:.2f} us |
| from the actor to the learner's process, for a step (actor and driver together) | {measured.hand_off_us:.2f} us |
| PPO update on one CPU thread, for a step (the demo's net, 6 epochs) | {measured.learner_us:.0f} us |
| the same on one GPU (H200), each epoch in one minibatch | {measured.learner_gpu_us:.1f} us |
| an open episode, in the serving process | {measured.episode_bytes:,.0f} bytes |

The nets are those of the benchmarks (two layers of 256; the learner's is the demo's LSTM), observations are 10 numbers.

## Measured: a second actor

By `python -m benchmarks.cluster.second_actor`: daemon, actors and callers are on hosts made of namespaces, with TLS between them, and the
learner trains on what it can take. **The hosts share 2 cores in all**, so actions a second and latencies show overhead and correctness, not
what such hosts would do; the processor time of an action is what counts.

{second_actor.rendered(results)}

## Measured: what passes through the driver

The learner is on a machine of its own (`num_learners = 1`), so that the driver does nothing but drive; for a step that a serving actor
hands off, less what an idle server takes. Written by `python -m benchmarks.cluster.driver`, on three hosts made of namespaces, each with a
network interface that counts; {EPISODES} episodes of 10 numbers, a net of two layers of 64, the shipped defaults else.

| algorithm | bytes received | bytes sent | driver CPU us | Ray's CPU us beside it | steps | updates | driver, idle |
| --- | --- | --- | --- | --- | --- | --- | --- |
{table(through_driver)}

- **PPO** fetches each step and passes it on to the learner. **DQN and SAC** keep the replay buffer in the driver: what they send is what
  the updates replay, as many steps for each new one as `training_intensity` says. RLlib sends each of them as an episode of its own, of
  1 to 2 KB here. So an update takes {_update_ms(through_driver, "DQN")} ms of the driver's processor with DQN's batches of 32 and
  {_update_ms(through_driver, "SAC")} ms with SAC's of 256: leave their learner in the daemon, unless an update takes far longer than that.
- **APPO and IMPALA** bypass the driver: the actor gives it a reference to the episodes, which the learner resolves. That is so without
  aggregators (`num_aggregator_actors_per_learner = 0`, the default) and with them, which build the batch in another process.
- With the learner in the driver (`num_learners = 0`) the driver receives every step, whatever the algorithm.

## Calculated: where each part ends

At {MOST_BUSY:.0%} of a core, beyond which waiting times grow faster than the load:

| part | actions/s |
| --- | --- |
{_ceiling_rows(measured)}

## Calculated: what a load takes

Serving actors have a core and at most {MOST_OPEN:,} open episodes each (`episodes.max_open`); callers have many episodes each. `driver` and
`learner` are shares of one core, or of one GPU, that it takes to fetch every step, and to train on every step; beyond {MOST_BUSY:.0%}
a part can't.

{_HEADER}
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{_load_rows(measured)}

- **The learner is the first limit**, and the only one that is soft: where clients can't wait, steps that it can't take are dropped and
  counted, and acting goes on. Where they can wait, they go at the learner's pace. Several learners (`num_learners`) divide a batch; their
  speed-up was not measured.
- **Serving** grows with actors, which share nothing on the path of a step. That n actors give n times the actions is an assumption here,
  which for n = 2 is measured by processor time, above. TLS is not in the calculation: it is in the second table.
- **The driver** fetches the steps of PPO, DQN and SAC; those of APPO and IMPALA go from the actor to the learner, if that is elsewhere.
- Not calculated, for nothing was measured: networks, latency between machines, and the checks of a client with very many connections.
"""


def _update_ms(figures: Mapping[str, PassedThrough], name: str) -> str:
    found = figures[name]
    return f"{1e-3 * found.driver_us * found.steps / found.updates:.0f}"


def _ceiling_rows(measured: Measured) -> str:
    found = sorted(ceilings(measured).items(), key=lambda each: each[1])
    return "\n".join(f"| {part} | {_rounded(actions):,} |" for part, actions in found)


def _load_rows(measured: Measured) -> str:
    rows = []
    for load in LOADS:
        found = needs(load, measured)
        cells = (
            f"{load.episodes_open:,}",
            f"{load.actions_per_s:,}",
            f"{found.actors}",
            f"{found.client_cores:.2g}",
            f"{found.episodes_bytes / 2**20:,.0f} MiB",
            f"{found.driver_busy:.0%}",
            f"{found.learner_busy:,.0%}",
            f"{found.learner_gpu_busy:,.0%}",
            found.first_limit or "-",
            found.first_limit_of_acting or "-",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _rounded(figure: float) -> int:
    """Round to two digits: the figures behind it have no more."""
    size = 10 ** max(0, len(str(int(figure))) - 2)
    return int(round(figure / size) * size)


def current() -> str:
    """Return the page of what was measured last."""
    results = second_actor.read_results()
    return rendered(read(second_actor.client_us(results)), results, read_through_driver())


def write() -> None:
    """Write the page."""
    PAGE.write_text(current(), encoding="utf-8")


if __name__ == "__main__":
    write()
