"""What the cells of the compatibility matrix are: an algorithm, an action space, an observation space and a model each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policyserver.server.config.rllib_config import RLlibConfig, SpacesConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.serving_config import HandOffConfig, ListenConfig
from policyserver.server.config.standard_connectors import ConnectorsConfig

TRAIN_BATCH_STEPS = 64
_OWN = "python:benchmarks.compatibility.own_code"

ACTIONS: dict[str, dict[str, Any]] = {
    "Discrete": {"type": "Discrete", "n": 3},
    "MultiDiscrete": {"type": "MultiDiscrete", "nvec": [3, 2]},
    "Box": {"type": "Box", "low": [-2.0, 0.0], "high": [2.0, 1.0], "shape": [2]},
}
"""The action spaces, by the name of their column."""

_VECTOR = {"type": "Box", "low": -1.0, "high": 1.0, "shape": [5]}
_DOUBLES = {**_VECTOR, "dtype": "float64"}
_IMAGE = {"type": "Box", "low": 0, "high": 255, "shape": [12, 10, 3], "dtype": "uint8"}
_FRAME = {**_IMAGE, "shape": [12, 10, 1]}
_DISCRETE = {"type": "Discrete", "n": 5}
_MULTI_DISCRETE = {"type": "MultiDiscrete", "nvec": [3, 4]}
_MULTI_BINARY = {"type": "MultiBinary", "n": 4}
_INNER = {"type": "Tuple", "spaces": [{"type": "Discrete", "n": 3}, {"type": "MultiBinary", "n": 2}]}
_NESTED = {"type": "Dict", "spaces": {"position": {"type": "Box", "low": -1.0, "high": 1.0, "shape": [2]}, "rest": _INNER}}

_MLP = {"fcnet_hiddens": [16], "use_lstm": False}
_CONVOLUTION = {**_MLP, "conv_filters": [[4, 3, 2], [8, 3, 2]]}
_MEMORY = {"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5, "vf_share_layers": True}


@dataclass(frozen=True)
class Row:
    """An observation space and a model."""

    name: str
    """Short name, for the command line and files."""
    observations: str
    """What is observed, for the page."""
    model: str
    """What the model is, for the page."""
    space: Mapping[str, Any]
    """The observation space, as a configuration file has it."""
    model_config: Mapping[str, Any] = field(default_factory=lambda: _MLP)
    """The model, likewise."""
    connectors: ConnectorsConfig = field(default_factory=ConnectorsConfig)
    """The connectors, likewise."""
    own_module: bool = False
    """Whether the module is the user's class instead."""
    own_connector: bool = False
    """Whether the user's connector comes before RLlib's."""
    state: tuple[str, ...] = ()
    """Keys of the recurrent state that the module must turn out to have, those of nested ones joined by a dot."""
    convolution: bool = False
    """Whether it must turn out to have convolutional layers. RLlib's modules may ignore a setting, and then the cell has not run."""
    connectors_built: tuple[str, ...] = ()
    """Classes of the connectors that come before RLlib's default ones, by name."""
    in_actor: bool = False
    """Whether the env runner serves in an actor, as in a daemon, or in the learner's process, which is much faster to start."""


_LSTM = {**_MLP, **_MEMORY}
_ONE_STATE = ("c", "h")
_TWO_STATES = ("actor.c", "actor.h", "critic.c", "critic.h")
_FLAT = ("FlattenObservations",)
_SCALED = ("ScaleImages",)

ROWS = (
    Row("vector_mlp", "vector, float32", "MLP", _VECTOR),
    Row("vector_lstm", "vector, float32", "LSTM, value layers shared", _VECTOR, _LSTM, state=_ONE_STATE),
    Row(
        "vector_lstms",
        "vector, float32",
        "LSTM, value layers separate",
        _VECTOR,
        {**_LSTM, "vf_share_layers": False},
        state=_TWO_STATES,
        in_actor=True,
    ),
    Row("vector_own", "vector, float32", "the user's RLModule", _VECTOR, own_module=True),
    Row("doubles_mlp", "vector, float64", "MLP", _DOUBLES),
    Row(
        "vector_filter",
        "vector, float32, `mean_std_filter`",
        "MLP",
        _VECTOR,
        connectors=ConnectorsConfig(mean_std_filter=True),
        connectors_built=("MeanStdFilter",),
        in_actor=True,
    ),
    Row(
        "vector_connector",
        "vector, float32, the user's connector",
        "MLP",
        _VECTOR,
        own_connector=True,
        connectors_built=("AddTime",),
        in_actor=True,
    ),
    Row("image_cnn", "image, uint8, (12, 10, 3)", "convolution", _IMAGE, _CONVOLUTION, convolution=True, connectors_built=_SCALED),
    Row(
        "image_cnn_lstm",
        "image, uint8, (12, 10, 3)",
        "convolution, LSTM",
        _IMAGE,
        {**_CONVOLUTION, **_MEMORY},
        state=_ONE_STATE,
        convolution=True,
        connectors_built=_SCALED,
    ),
    Row(
        "frames_cnn",
        "image, uint8, (12, 10, 1), `num_frames = 4`",
        "convolution",
        _FRAME,
        _CONVOLUTION,
        ConnectorsConfig(num_frames=4),
        convolution=True,
        connectors_built=(*_SCALED, "FrameStacking"),
        in_actor=True,
    ),
    Row("discrete_mlp", "Discrete, flattened", "MLP", _DISCRETE, connectors_built=_FLAT),
    Row("discrete_lstm", "Discrete, flattened", "LSTM", _DISCRETE, _LSTM, state=_ONE_STATE, connectors_built=_FLAT),
    Row("multi_discrete_mlp", "MultiDiscrete, flattened", "MLP", _MULTI_DISCRETE, connectors_built=_FLAT),
    Row("multi_discrete_lstm", "MultiDiscrete, flattened", "LSTM", _MULTI_DISCRETE, _LSTM, state=_ONE_STATE, connectors_built=_FLAT),
    Row("multi_binary_mlp", "MultiBinary, flattened", "MLP", _MULTI_BINARY, connectors_built=_FLAT),
    Row("multi_binary_lstm", "MultiBinary, flattened", "LSTM", _MULTI_BINARY, _LSTM, state=_ONE_STATE, connectors_built=_FLAT),
    Row("nested_mlp", "Dict with a Tuple, flattened", "MLP", _NESTED, connectors_built=_FLAT),
    Row("nested_lstm", "Dict with a Tuple, flattened", "LSTM", _NESTED, _LSTM, state=_ONE_STATE, connectors_built=_FLAT),
    Row("nested_own", "Dict with a Tuple, as it is", "the user's RLModule", _NESTED, own_module=True, in_actor=True),
)
"""The observation spaces and models, in the page's order."""

_ACTOR_CRITIC = {"train_batch_size_per_learner": TRAIN_BATCH_STEPS}
_REPLAY = {"train_batch_size_per_learner": 16, "num_steps_sampled_before_learning_starts": TRAIN_BATCH_STEPS, "training_intensity": None}


@dataclass(frozen=True)
class Settings:
    """Small settings of an algorithm, for a cell to be done within seconds."""

    training: Mapping[str, Any]
    """Table `[algorithm.training]`."""
    fragment_steps: int | str
    """`rollout_fragment_length` of `[algorithm.env_runners]`."""
    module_class: str
    """Class of the user's own RLModule, in `own_code`."""


ALGORITHMS = {
    "PPO": Settings({**_ACTOR_CRITIC, "minibatch_size": 32, "num_epochs": 2}, "auto", "ActorCritic"),
    "APPO": Settings(_ACTOR_CRITIC, 16, "ActorCritic"),
    "IMPALA": Settings(_ACTOR_CRITIC, 16, "ActorCritic"),
    "DQN": Settings(_REPLAY, 8, "QNet"),
    "SAC": Settings(_REPLAY, 8, "SoftActorCritic"),
}
"""The algorithms, in the page's order."""


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix."""

    algorithm: str
    """RLlib's name of the algorithm."""
    action: str
    """Key of `ACTIONS`."""
    row: Row
    """Observations and model."""

    @property
    def name(self) -> str:
        """Name of the cell, unique."""
        return f"{self.algorithm}-{self.action}-{self.row.name}"

    def server_config(self) -> ServerConfig:
        """Return the configuration, as a file would give it."""
        row, settings = self.row, ALGORITHMS[self.algorithm]
        training = dict(settings.training)
        if "training_intensity" in training:
            # RLlib's buffer with priorities can't sample sequences.
            kind = "EpisodeReplayBuffer" if row.state else "PrioritizedEpisodeReplayBuffer"
            training["replay_buffer_config"] = {"type": kind, "capacity": 1000, "alpha": 0.6, "beta": 0.4}
        module: dict[str, Any] = {"model_config": dict(row.model_config)}
        if row.own_module:
            module = {"module_class": f"{_OWN}.{settings.module_class}", "model_config": {}}
        env_runners: dict[str, Any] = {"num_env_runners": int(row.in_actor), "rollout_fragment_length": settings.fragment_steps}
        if row.own_connector:
            env_runners["env_to_module_connector"] = "python:examples.own_net.add_time"
        return ServerConfig(
            listen=ListenConfig("127.0.0.1:0"),
            hand_off=HandOffConfig(segment_steps=8, max_segment_age_s=5.0, sample_wait_s=0.5),
            spaces=SpacesConfig(observation=dict(row.space), action=ACTIONS[self.action]),
            connectors=row.connectors,
            algorithm=RLlibConfig(
                name=self.algorithm,  # type: ignore[arg-type]
                training=training,
                rl_module=module,
                env_runners=env_runners,
                reporting={"min_time_s_per_iteration": 0, "min_sample_timesteps_per_iteration": 0, "min_train_timesteps_per_iteration": 0},
            ),
        )


CELLS = tuple(Cell(algorithm, action, row) for algorithm in ALGORITHMS for row in ROWS for action in ACTIONS)
"""All cells, in the page's order."""

KNOWN_LIMITS = {
    r"SAC only supports Box and Discrete action spaces": "SAC has no MultiDiscrete actions",
    r"SAC's state: expected .*, built none": "SAC's default module leaves `use_lstm` out of account",
    r"'(Box|MultiDiscrete)' object has no attribute 'n'": "DQN has Discrete actions alone",
    r"DQN's state: expected actor.*, built c h": "DQN has no value layers that could be separate; see the row above",
    r"^ValueError: axes don't match array": "RLlib stacks frames of fragments, not of the single steps that a replay buffer gives",
}
"""Why RLlib alone can't run a cell: an expression that finds RLlib's error, and what it means. Any other failure has to be looked into."""
