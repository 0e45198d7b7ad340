"""The cases: each row is a server set-up, a load and the figures to reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.speed.case import Bar, Beside, Case, Floor
from benchmarks.speed.contenders import STARTS, demo_closed_loop, hand_off, learner, loaded, pipeline_cpu, startup
from benchmarks.speed.peers.table import GPU, LEARNER_DEFAULTS, LEARNER_DEFAULTS_GPU, OLD_SERVER, RUNNER_LSTM, RUNNER_MLP
from benchmarks.speed.policies import HALVES, SHADOW, beside_another, roll_back

MLP = """
[algorithm]
name = "PPO"
[algorithm.training]
train_batch_size_per_learner = 4000
minibatch_size = 256
num_epochs = 6
[algorithm.rl_module.model_config]
fcnet_hiddens = [256, 256]
use_lstm = false
[episodes]
max_open = 20000
"""
LSTM = MLP.replace("use_lstm = false", "use_lstm = true\nlstm_cell_size = 256\nvf_share_layers = true")
NO_EXPLORATION = "[algorithm.env_runners]\nexplore = false\n"
DEFAULT_SET_UP = ""
NETS = {MLP: "MLP 256-256", MLP + NO_EXPLORATION: "MLP 256-256", LSTM: "LSTM 256", DEFAULT_SET_UP: "the default set-up's"}

# The echo on the machine that the bars were set on.
ONE_BY_ONE = Floor(1, 1, 2_322)
CROWD = Floor(64, 1, 9_161)
FULL_MESSAGES = Floor(1, 64, 116_000)
FULL_MESSAGES_4 = Floor(4, 64, 150_000)

_BUSY = (Bar("throughput_of_idle", at_least=0.8), Bar("p99_of_idle", at_most=2.0))
_NONE_LEAKED = (
    Bar("episodes_open", at_least=10_000),
    Bar("episodes_leaked", 0, 0),
    Bar("reward_sum_off_by", 0, 0),
    Bar("memory_again_mb", at_most=10),
)
_STEPS = {"episode_steps": 200}
_MANY = {"episodes": 10_000, "rounds": 20, "rows_per_call": 1_000}
_HIDDEN = {"fcnet_hiddens": [256, 256], "use_lstm": False}
_LSTM_256 = {"fcnet_hiddens": [256, 256], "use_lstm": True, "lstm_cell_size": 256, "vf_share_layers": True}
_HANDED_OVER = (
    "40,000 steps in episodes of 50, from a call of `sample()` on the serving actor to the list of episodes in the learner's process"
)


def _pair(
    name: str,
    says: str,
    load: str,
    options: Mapping[str, Any],
    bars: tuple[Bar, ...],
    floor: Floor,
    *,
    config: str = MLP,
    peer: str | None = None,
) -> tuple[Case, Case]:
    """Return a case with the learner idle, and the same while PPO trains on these very steps."""
    idle, busy = (loaded(load, {**options, "training": training}, config, NETS[config]) for training in (False, True))
    return (
        Case(name, f"{says}, learner idle", idle, bars, floor, peer),
        Case(f"{name}_busy", "the same while PPO trains on these steps", busy, _BUSY, floor, beside=Beside(name, "idle")),
    )


def _threads(callers: int, floor: Floor, *bars: Bar, peer: str | None = None) -> tuple[Case, Case]:
    says = f"{callers} blocking thread{'s of one client' if callers > 1 else ''}"
    return _pair(f"threads_{callers}_mlp", says, "threads", {**_STEPS, "callers": callers}, bars, floor, peer=peer)


def _vector(name: str, peer: str, *bars: Bar, config: str = MLP) -> tuple[Case, Case]:
    says = "1 caller that steps 256 episodes with each call"
    return _pair(name, says, "vector", {**_STEPS, "episodes": 256}, bars, FULL_MESSAGES, config=config, peer=peer)


def _unix(case: str, load: str, options: Mapping[str, Any], floor: Floor) -> Case:
    contender = loaded(load, {**_STEPS, **options, "training": False}, MLP, NETS[MLP], unix=True)
    return Case(f"{case}_unix", f"`{case}` over a unix socket instead of TCP", contender, (), floor, beside=Beside(case, "tcp"))


def _one_core(callers: int, *bars: Bar) -> Case:
    case = f"threads_{callers}_mlp"
    contender = loaded("threads", {**_STEPS, "callers": callers, "training": False, "one_core": True}, MLP, NETS[MLP])
    return Case(f"{case}_one_core", f"`{case}` with `ClientConfig(callers_core=...)`", contender, bars, beside=Beside(case, "free"))


def _beside_another(name: str, says: str, traffic: str, least: float) -> Case:
    options = {**_STEPS, "callers": 64, "training": False}
    contender = beside_another("threads", options, MLP, traffic, NETS[MLP])
    bars = (Bar("throughput_of_live", at_least=least),)
    return Case(name, f"`threads_64_mlp` with {says}", contender, bars, beside=Beside("threads_64_mlp", "live"), rounds=5)


CASES = (
    Case("startup", f"`policy-server serve` to ready, {STARTS} starts", startup, (Bar("max_ms", at_most=20_000),), rounds=1),
    *_threads(1, ONE_BY_ONE, Bar("p50_ms", at_most=0.9), Bar("p99_ms", at_most=2.5)),
    _unix("threads_1_mlp", "threads", {"callers": 1}, ONE_BY_ONE),
    *_threads(
        64, CROWD, Bar("steps_per_s", at_least=14_000), Bar("p99_ms", at_most=10), Bar("ratio_to_peer", at_least=50), peer=OLD_SERVER
    ),
    _one_core(64),
    _beside_another("two_policies_64", "two policies that decide half of the episodes each", HALVES, 0.85),
    _beside_another("shadow_64", "a shadow of the same net", SHADOW, 0.75),
    Case(
        "rollback_idle",
        "`ctl rollback`, from the call to its answer",
        roll_back(MLP),
        (Bar("max_ms", at_most=1000),),
        rounds=5,
    ),
    Case(
        "rollback_busy",
        "the same while 64 threads play and PPO trains on their steps",
        roll_back(MLP, {**_STEPS, "callers": 64, "training": True}),
        (Bar("max_ms", at_most=1000),),
        rounds=5,
    ),
    *_threads(256, CROWD, Bar("steps_per_s", at_least=22_000)),
    _one_core(256, Bar("steps_per_s", at_least=22_000)),
    Case(
        "threads_4x16_mlp",
        "4 client processes of 16 blocking threads each, learner idle",
        loaded("threads", {**_STEPS, "callers": 16, "processes": 4, "training": False}, MLP, NETS[MLP]),
        floor=CROWD,
        beside=Beside("threads_64_mlp", "one_client"),
    ),
    *_vector("vector_256_mlp", RUNNER_MLP, Bar("steps_per_s", at_least=100_000), Bar("ratio_to_peer", at_least=5)),
    _unix("vector_256_mlp", "vector", {"episodes": 256}, FULL_MESSAGES),
    *_vector("vector_256_lstm", RUNNER_LSTM, Bar("steps_per_s", at_least=23_000), Bar("ratio_to_peer", at_least=4), config=LSTM),
    Case(
        "open_10000_mlp",
        "10,000 episodes open at once, stepped in random order through one client, 1,000 with each call; no exploration, learner idle",
        loaded("open_many", {**_MANY, "training": False, "known_actions": True}, MLP + NO_EXPLORATION, NETS[MLP]),
        (Bar("steps_per_s", at_least=120_000), *_NONE_LEAKED, Bar("actions_mixed_up", 0, 0)),
        FULL_MESSAGES_4,
    ),
    Case(
        "open_10000_mlp_busy",
        "the same while PPO trains on these steps, with exploration",
        loaded("open_many", {**_MANY, "training": True, "known_actions": False}, MLP, NETS[MLP]),
        (*_BUSY, *_NONE_LEAKED, Bar("returns_mixed_up", 0, 0)),
        FULL_MESSAGES_4,
        beside=Beside("open_10000_mlp", "idle"),
    ),
    Case(
        "longest_call_64_mlp",
        "64 blocking threads of one client during 5 minutes of learning: the longest single call",
        loaded("threads", {**_STEPS, "callers": 64, "training": True, "timeline": True}, MLP, NETS[MLP]),
        (Bar("max_ms", at_most=100),),
        window_s=300,
        rounds=1,
    ),
    Case("hand_off_mlp", _HANDED_OVER, hand_off(_HIDDEN, "MLP 256-256"), (Bar("steps_per_s", at_least=200_000),), rounds=1),
    Case("hand_off_lstm", _HANDED_OVER, hand_off(_LSTM_256, "LSTM 256"), (Bar("steps_per_s", at_least=150_000),), rounds=1),
    Case(
        "learner_lstm",
        "updates of the demo's PPO (6 epochs of minibatches of 512) on 4,000 steps of its problem; the milliseconds are an update's",
        learner("demo"),
        (Bar("ratio_to_peer", at_least=2),),
        peer=LEARNER_DEFAULTS,
        window_s=5,
    ),
    Case(
        "learner_lstm_demo_net",
        "RLlib's defaults but for the demo's net",
        learner("demo_net"),
        beside=Beside("learner_lstm", "the_demo"),
        window_s=5,
    ),
    Case(
        "learner_lstm_demo_update",
        "RLlib's defaults but for the demo's update (6 epochs of minibatches of 512)",
        learner("demo_update"),
        beside=Beside("learner_lstm", "the_demo"),
        window_s=5,
    ),
    Case(
        "learner_lstm_gpu",
        "`learner_lstm` on a GPU",
        learner("demo", GPU),
        (Bar("ratio_to_peer", at_least=2),),
        peer=LEARNER_DEFAULTS_GPU,
        beside=Beside("learner_lstm", "the_cpu"),
        window_s=5,
    ),
    Case(
        "learner_lstm_gpu_whole_batch",
        "`learner_lstm` on a GPU, each epoch in one minibatch of 4,000 steps",
        learner("demo_whole_batch", GPU),
        beside=Beside("learner_lstm", "the_cpu"),
        window_s=5,
    ),
    *(
        Case(
            f"pipeline_cpu_{episodes}",
            f"the demo's pipeline with {episodes} episodes, no server and no store: its CPU for each step, beside bare River calls",
            pipeline_cpu(episodes),
            window_s=10,
            rounds=1,
        )
        for episodes in (64, 256)
    ),
    Case(
        "demo_closed_loop",
        "`policy-pipeline demo`: the whole application, learning",
        demo_closed_loop,
        (Bar("steps_per_s", at_least=4_000),),
        window_s=20,
        rounds=1,
    ),
    Case(
        "memory_open_idle",
        "10,000 episodes open, one step each, and left alone: resident memory of the serving process for each",
        loaded("open_idle", {"episodes": 10_000}, DEFAULT_SET_UP, NETS[DEFAULT_SET_UP]),
        (Bar("bytes_per_episode", at_most=32 * 1024), Bar("episodes_open", at_least=10_000)),
        rounds=1,
    ),
    Case(
        "memory_finished",
        "1,000,000 episodes of 3 steps, 500 at a time, while PPO trains on what it can take of them",
        loaded("finish_many", {"episodes": 1_000_000, "episode_steps": 3, "every": 100_000}, DEFAULT_SET_UP, NETS[DEFAULT_SET_UP]),
        (Bar("growth_mb_per_100000", at_most=10), Bar("episodes_leaked", 0, 0)),
        rounds=1,
    ),
)

# `make bench-quick`: the core, short enough to be run after every change.
QUICK_NAMES = ("threads_1_mlp", "threads_64_mlp", "threads_64_mlp_busy", "vector_256_mlp", "hand_off_mlp")
QUICK = tuple(
    replace(case, window_s=2.0, rounds=1, peer=None, bars=tuple(bar for bar in case.bars if bar.key != "ratio_to_peer"))
    for case in CASES
    if case.name in QUICK_NAMES
)
