from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERVER_STATE_UNSPECIFIED: _ClassVar[ServerState]
    SERVER_STATE_STARTING: _ClassVar[ServerState]
    SERVER_STATE_SERVING: _ClassVar[ServerState]
    SERVER_STATE_DRAINING: _ClassVar[ServerState]

class LearningState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEARNING_STATE_UNSPECIFIED: _ClassVar[LearningState]
    LEARNING_STATE_ABSENT: _ClassVar[LearningState]
    LEARNING_STATE_COLLECTING: _ClassVar[LearningState]
    LEARNING_STATE_UPDATING: _ClassVar[LearningState]
    LEARNING_STATE_PAUSING: _ClassVar[LearningState]
    LEARNING_STATE_PAUSED: _ClassVar[LearningState]
    LEARNING_STATE_STARTING: _ClassVar[LearningState]

class ActorState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTOR_STATE_UNSPECIFIED: _ClassVar[ActorState]
    ACTOR_STATE_SERVING: _ClassVar[ActorState]
    ACTOR_STATE_LEAVING: _ClassVar[ActorState]
    ACTOR_STATE_SILENT: _ClassVar[ActorState]
    ACTOR_STATE_AWAY: _ClassVar[ActorState]
SERVER_STATE_UNSPECIFIED: ServerState
SERVER_STATE_STARTING: ServerState
SERVER_STATE_SERVING: ServerState
SERVER_STATE_DRAINING: ServerState
LEARNING_STATE_UNSPECIFIED: LearningState
LEARNING_STATE_ABSENT: LearningState
LEARNING_STATE_COLLECTING: LearningState
LEARNING_STATE_UPDATING: LearningState
LEARNING_STATE_PAUSING: LearningState
LEARNING_STATE_PAUSED: LearningState
LEARNING_STATE_STARTING: LearningState
ACTOR_STATE_UNSPECIFIED: ActorState
ACTOR_STATE_SERVING: ActorState
ACTOR_STATE_LEAVING: ActorState
ACTOR_STATE_SILENT: ActorState
ACTOR_STATE_AWAY: ActorState

class CheckpointInfo(_message.Message):
    __slots__ = ("number", "path", "written_at", "bytes", "iteration", "steps_total", "weights_seq_no", "weights_sha256", "pinned", "lineage", "restored_from")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_AT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FROM_FIELD_NUMBER: _ClassVar[int]
    number: int
    path: str
    written_at: str
    bytes: int
    iteration: int
    steps_total: int
    weights_seq_no: int
    weights_sha256: str
    pinned: bool
    lineage: int
    restored_from: int
    def __init__(self, number: _Optional[int] = ..., path: _Optional[str] = ..., written_at: _Optional[str] = ..., bytes: _Optional[int] = ..., iteration: _Optional[int] = ..., steps_total: _Optional[int] = ..., weights_seq_no: _Optional[int] = ..., weights_sha256: _Optional[str] = ..., pinned: _Optional[bool] = ..., lineage: _Optional[int] = ..., restored_from: _Optional[int] = ...) -> None: ...

class ActorStatus(_message.Message):
    __slots__ = ("boot_id", "uptime_s", "weights_seq_no", "clients_connected", "episodes_open", "actions", "steps_waiting", "steps_paused", "steps_cut_off")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    EPISODES_OPEN_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    STEPS_WAITING_FIELD_NUMBER: _ClassVar[int]
    STEPS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    STEPS_CUT_OFF_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    uptime_s: float
    weights_seq_no: int
    clients_connected: int
    episodes_open: int
    actions: int
    steps_waiting: int
    steps_paused: int
    steps_cut_off: int
    def __init__(self, boot_id: _Optional[str] = ..., uptime_s: _Optional[float] = ..., weights_seq_no: _Optional[int] = ..., clients_connected: _Optional[int] = ..., episodes_open: _Optional[int] = ..., actions: _Optional[int] = ..., steps_waiting: _Optional[int] = ..., steps_paused: _Optional[int] = ..., steps_cut_off: _Optional[int] = ...) -> None: ...

class ServingActor(_message.Message):
    __slots__ = ("number", "state", "addresses", "host", "node_address", "weights_seq_no", "episodes_open", "actions_per_s", "since_answer_s", "boot_id")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    NODE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    EPISODES_OPEN_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_PER_S_FIELD_NUMBER: _ClassVar[int]
    SINCE_ANSWER_S_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    number: int
    state: ActorState
    addresses: _containers.RepeatedScalarFieldContainer[str]
    host: str
    node_address: str
    weights_seq_no: int
    episodes_open: int
    actions_per_s: float
    since_answer_s: float
    boot_id: str
    def __init__(self, number: _Optional[int] = ..., state: _Optional[_Union[ActorState, str]] = ..., addresses: _Optional[_Iterable[str]] = ..., host: _Optional[str] = ..., node_address: _Optional[str] = ..., weights_seq_no: _Optional[int] = ..., episodes_open: _Optional[int] = ..., actions_per_s: _Optional[float] = ..., since_answer_s: _Optional[float] = ..., boot_id: _Optional[str] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("state", "learning", "run", "instance_id", "server_version", "process_id", "uptime_s", "iteration", "steps_total", "learner_updates", "weights_seq_no", "since_iteration_s", "failures", "last_failure", "checkpoint", "actors_expected", "actors", "log_level", "lineage", "restored_from", "rolling_back_to", "policies", "guard_fired", "guard_finding", "paused_by_guard", "actors_silent", "steps_undelivered", "serving_actors")
    STATE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    LEARNER_UPDATES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    SINCE_ITERATION_S_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ACTORS_EXPECTED_FIELD_NUMBER: _ClassVar[int]
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    LOG_LEVEL_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FROM_FIELD_NUMBER: _ClassVar[int]
    ROLLING_BACK_TO_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    GUARD_FIRED_FIELD_NUMBER: _ClassVar[int]
    GUARD_FINDING_FIELD_NUMBER: _ClassVar[int]
    PAUSED_BY_GUARD_FIELD_NUMBER: _ClassVar[int]
    ACTORS_SILENT_FIELD_NUMBER: _ClassVar[int]
    STEPS_UNDELIVERED_FIELD_NUMBER: _ClassVar[int]
    SERVING_ACTORS_FIELD_NUMBER: _ClassVar[int]
    state: ServerState
    learning: LearningState
    run: str
    instance_id: str
    server_version: str
    process_id: int
    uptime_s: float
    iteration: int
    steps_total: int
    learner_updates: int
    weights_seq_no: int
    since_iteration_s: float
    failures: int
    last_failure: str
    checkpoint: int
    actors_expected: int
    actors: _containers.RepeatedCompositeFieldContainer[ActorStatus]
    log_level: str
    lineage: int
    restored_from: int
    rolling_back_to: int
    policies: _containers.RepeatedCompositeFieldContainer[PolicyInfo]
    guard_fired: int
    guard_finding: str
    paused_by_guard: bool
    actors_silent: _containers.RepeatedScalarFieldContainer[int]
    steps_undelivered: int
    serving_actors: _containers.RepeatedCompositeFieldContainer[ServingActor]
    def __init__(self, state: _Optional[_Union[ServerState, str]] = ..., learning: _Optional[_Union[LearningState, str]] = ..., run: _Optional[str] = ..., instance_id: _Optional[str] = ..., server_version: _Optional[str] = ..., process_id: _Optional[int] = ..., uptime_s: _Optional[float] = ..., iteration: _Optional[int] = ..., steps_total: _Optional[int] = ..., learner_updates: _Optional[int] = ..., weights_seq_no: _Optional[int] = ..., since_iteration_s: _Optional[float] = ..., failures: _Optional[int] = ..., last_failure: _Optional[str] = ..., checkpoint: _Optional[int] = ..., actors_expected: _Optional[int] = ..., actors: _Optional[_Iterable[_Union[ActorStatus, _Mapping]]] = ..., log_level: _Optional[str] = ..., lineage: _Optional[int] = ..., restored_from: _Optional[int] = ..., rolling_back_to: _Optional[int] = ..., policies: _Optional[_Iterable[_Union[PolicyInfo, _Mapping]]] = ..., guard_fired: _Optional[int] = ..., guard_finding: _Optional[str] = ..., paused_by_guard: _Optional[bool] = ..., actors_silent: _Optional[_Iterable[int]] = ..., steps_undelivered: _Optional[int] = ..., serving_actors: _Optional[_Iterable[_Union[ServingActor, _Mapping]]] = ...) -> None: ...

class PolicyInfo(_message.Message):
    __slots__ = ("name", "checkpoint", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    checkpoint: CheckpointInfo
    bytes: int
    def __init__(self, name: _Optional[str] = ..., checkpoint: _Optional[_Union[CheckpointInfo, _Mapping]] = ..., bytes: _Optional[int] = ...) -> None: ...

class LoadPolicyRequest(_message.Message):
    __slots__ = ("number", "name")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    number: int
    name: str
    def __init__(self, number: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class LoadPolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: PolicyInfo
    def __init__(self, policy: _Optional[_Union[PolicyInfo, _Mapping]] = ...) -> None: ...

class DropPolicyRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DropPolicyResponse(_message.Message):
    __slots__ = ("was_loaded", "loaded")
    WAS_LOADED_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    was_loaded: bool
    loaded: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, was_loaded: _Optional[bool] = ..., loaded: _Optional[_Iterable[str]] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class PauseLearningRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseLearningResponse(_message.Message):
    __slots__ = ("weights_seq_no",)
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    weights_seq_no: int
    def __init__(self, weights_seq_no: _Optional[int] = ...) -> None: ...

class ResumeLearningRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeLearningResponse(_message.Message):
    __slots__ = ("weights_seq_no",)
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    weights_seq_no: int
    def __init__(self, weights_seq_no: _Optional[int] = ...) -> None: ...

class SaveCheckpointRequest(_message.Message):
    __slots__ = ("pin",)
    PIN_FIELD_NUMBER: _ClassVar[int]
    pin: bool
    def __init__(self, pin: _Optional[bool] = ...) -> None: ...

class SaveCheckpointResponse(_message.Message):
    __slots__ = ("checkpoint",)
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    checkpoint: CheckpointInfo
    def __init__(self, checkpoint: _Optional[_Union[CheckpointInfo, _Mapping]] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[CheckpointInfo]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[CheckpointInfo, _Mapping]]] = ...) -> None: ...

class PinCheckpointRequest(_message.Message):
    __slots__ = ("number", "pinned")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    number: int
    pinned: bool
    def __init__(self, number: _Optional[int] = ..., pinned: _Optional[bool] = ...) -> None: ...

class PinCheckpointResponse(_message.Message):
    __slots__ = ("checkpoint",)
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    checkpoint: CheckpointInfo
    def __init__(self, checkpoint: _Optional[_Union[CheckpointInfo, _Mapping]] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class RollBackResponse(_message.Message):
    __slots__ = ("checkpoint", "weights_seq_no", "actors", "weights_sha256", "steps_dropped")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    STEPS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    checkpoint: CheckpointInfo
    weights_seq_no: int
    actors: int
    weights_sha256: str
    steps_dropped: int
    def __init__(self, checkpoint: _Optional[_Union[CheckpointInfo, _Mapping]] = ..., weights_seq_no: _Optional[int] = ..., actors: _Optional[int] = ..., weights_sha256: _Optional[str] = ..., steps_dropped: _Optional[int] = ...) -> None: ...

class RestartActorsRequest(_message.Message):
    __slots__ = ("drain_timeout_s",)
    DRAIN_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    drain_timeout_s: float
    def __init__(self, drain_timeout_s: _Optional[float] = ...) -> None: ...

class ReplacedActor(_message.Message):
    __slots__ = ("number", "boot_id", "episodes_cut", "seconds")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    EPISODES_CUT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    number: int
    boot_id: str
    episodes_cut: int
    seconds: float
    def __init__(self, number: _Optional[int] = ..., boot_id: _Optional[str] = ..., episodes_cut: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class RestartActorsResponse(_message.Message):
    __slots__ = ("actors",)
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    actors: _containers.RepeatedCompositeFieldContainer[ReplacedActor]
    def __init__(self, actors: _Optional[_Iterable[_Union[ReplacedActor, _Mapping]]] = ...) -> None: ...

class ScaleActorsRequest(_message.Message):
    __slots__ = ("actors", "drain_timeout_s")
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    actors: int
    drain_timeout_s: float
    def __init__(self, actors: _Optional[int] = ..., drain_timeout_s: _Optional[float] = ...) -> None: ...

class AddedActor(_message.Message):
    __slots__ = ("number", "address", "seconds")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    number: int
    address: str
    seconds: float
    def __init__(self, number: _Optional[int] = ..., address: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class RemovedActor(_message.Message):
    __slots__ = ("number", "episodes_cut", "seconds")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    EPISODES_CUT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    number: int
    episodes_cut: int
    seconds: float
    def __init__(self, number: _Optional[int] = ..., episodes_cut: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class ScaleActorsResponse(_message.Message):
    __slots__ = ("before", "actors", "added", "removed")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    before: int
    actors: int
    added: _containers.RepeatedCompositeFieldContainer[AddedActor]
    removed: _containers.RepeatedCompositeFieldContainer[RemovedActor]
    def __init__(self, before: _Optional[int] = ..., actors: _Optional[int] = ..., added: _Optional[_Iterable[_Union[AddedActor, _Mapping]]] = ..., removed: _Optional[_Iterable[_Union[RemovedActor, _Mapping]]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("final",)
    FINAL_FIELD_NUMBER: _ClassVar[int]
    final: bool
    def __init__(self, final: _Optional[bool] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("stop_timeout_s",)
    STOP_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    stop_timeout_s: float
    def __init__(self, stop_timeout_s: _Optional[float] = ...) -> None: ...

class SetLogLevelRequest(_message.Message):
    __slots__ = ("level",)
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    level: str
    def __init__(self, level: _Optional[str] = ...) -> None: ...

class SetLogLevelResponse(_message.Message):
    __slots__ = ("before",)
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    before: str
    def __init__(self, before: _Optional[str] = ...) -> None: ...
