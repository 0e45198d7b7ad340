from policyserver.v1 import space_pb2 as _space_pb2
from policyserver.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StepFlag(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_FLAG_UNSPECIFIED: _ClassVar[StepFlag]
    STEP_FLAG_START: _ClassVar[StepFlag]
    STEP_FLAG_ACTION_GIVEN: _ClassVar[StepFlag]
    STEP_FLAG_TERMINATED: _ClassVar[StepFlag]
    STEP_FLAG_TRUNCATED: _ClassVar[StepFlag]
    STEP_FLAG_OVERRIDE: _ClassVar[StepFlag]
    STEP_FLAG_TRAINING_DISABLED: _ClassVar[StepFlag]
    STEP_FLAG_NO_WAIT: _ClassVar[StepFlag]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_EPISODE_UNKNOWN: _ClassVar[Reason]
    REASON_EPISODE_FINISHED: _ClassVar[Reason]
    REASON_EPISODE_IDLE: _ClassVar[Reason]
    REASON_EPISODE_DUPLICATE: _ClassVar[Reason]
    REASON_SEQUENCE_GAP: _ClassVar[Reason]
    REASON_SEQUENCE_CONFLICT: _ClassVar[Reason]
    REASON_BAD_OBSERVATION: _ClassVar[Reason]
    REASON_BAD_ACTION: _ClassVar[Reason]
    REASON_BAD_REWARD: _ClassVar[Reason]
    REASON_BAD_MESSAGE: _ClassVar[Reason]
    REASON_TOO_MANY_EPISODES: _ClassVar[Reason]
    REASON_LEARNER_BEHIND: _ClassVar[Reason]
    REASON_SHUTTING_DOWN: _ClassVar[Reason]
    REASON_HANDSHAKE_MISMATCH: _ClassVar[Reason]
    REASON_INTERNAL: _ClassVar[Reason]
    REASON_SERVER_ENDED: _ClassVar[Reason]
    REASON_POLICY_UNKNOWN: _ClassVar[Reason]
    REASON_TOO_MANY_VERSIONS: _ClassVar[Reason]
STEP_FLAG_UNSPECIFIED: StepFlag
STEP_FLAG_START: StepFlag
STEP_FLAG_ACTION_GIVEN: StepFlag
STEP_FLAG_TERMINATED: StepFlag
STEP_FLAG_TRUNCATED: StepFlag
STEP_FLAG_OVERRIDE: StepFlag
STEP_FLAG_TRAINING_DISABLED: StepFlag
STEP_FLAG_NO_WAIT: StepFlag
REASON_UNSPECIFIED: Reason
REASON_EPISODE_UNKNOWN: Reason
REASON_EPISODE_FINISHED: Reason
REASON_EPISODE_IDLE: Reason
REASON_EPISODE_DUPLICATE: Reason
REASON_SEQUENCE_GAP: Reason
REASON_SEQUENCE_CONFLICT: Reason
REASON_BAD_OBSERVATION: Reason
REASON_BAD_ACTION: Reason
REASON_BAD_REWARD: Reason
REASON_BAD_MESSAGE: Reason
REASON_TOO_MANY_EPISODES: Reason
REASON_LEARNER_BEHIND: Reason
REASON_SHUTTING_DOWN: Reason
REASON_HANDSHAKE_MISMATCH: Reason
REASON_INTERNAL: Reason
REASON_SERVER_ENDED: Reason
REASON_POLICY_UNKNOWN: Reason
REASON_TOO_MANY_VERSIONS: Reason

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("protocol_version", "server_version", "boot_id", "observation_space", "action_space", "endpoints", "max_message_bytes", "max_rows_per_message", "episode_idle_timeout_s", "weights_seq_no", "run", "instance_id", "stop_timeout_s", "stale", "endpoint_loads")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_SPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_SPACE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_PER_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EPISODE_IDLE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    STOP_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_LOADS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    server_version: str
    boot_id: str
    observation_space: _space_pb2.Space
    action_space: _space_pb2.Space
    endpoints: _containers.RepeatedScalarFieldContainer[str]
    max_message_bytes: int
    max_rows_per_message: int
    episode_idle_timeout_s: float
    weights_seq_no: int
    run: str
    instance_id: str
    stop_timeout_s: float
    stale: bool
    endpoint_loads: _containers.RepeatedCompositeFieldContainer[EndpointLoad]
    def __init__(self, protocol_version: _Optional[int] = ..., server_version: _Optional[str] = ..., boot_id: _Optional[str] = ..., observation_space: _Optional[_Union[_space_pb2.Space, _Mapping]] = ..., action_space: _Optional[_Union[_space_pb2.Space, _Mapping]] = ..., endpoints: _Optional[_Iterable[str]] = ..., max_message_bytes: _Optional[int] = ..., max_rows_per_message: _Optional[int] = ..., episode_idle_timeout_s: _Optional[float] = ..., weights_seq_no: _Optional[int] = ..., run: _Optional[str] = ..., instance_id: _Optional[str] = ..., stop_timeout_s: _Optional[float] = ..., stale: _Optional[bool] = ..., endpoint_loads: _Optional[_Iterable[_Union[EndpointLoad, _Mapping]]] = ...) -> None: ...

class EndpointLoad(_message.Message):
    __slots__ = ("address", "episodes_open")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    EPISODES_OPEN_FIELD_NUMBER: _ClassVar[int]
    address: str
    episodes_open: int
    def __init__(self, address: _Optional[str] = ..., episodes_open: _Optional[int] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("boot_id", "uptime_s", "clients_connected", "episodes_open", "episodes_started", "episodes_finished", "episodes_reaped", "actions", "rows_repeated", "rows_refused", "batches", "reward_sum", "steps_completed", "steps_handed_off", "steps_dropped", "steps_untrained", "steps_waiting", "weights_seq_no", "staleness_mean", "return_mean", "training", "questions_waiting", "questions_waited", "learner_wait_s", "starts_refused", "infos_dropped", "clients_refused", "messages_withheld", "actions_given", "actions_overridden", "steps_paused", "policies", "shadow_rows_failed", "steps_cut_off", "daemon_silent_s")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    EPISODES_OPEN_FIELD_NUMBER: _ClassVar[int]
    EPISODES_STARTED_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FINISHED_FIELD_NUMBER: _ClassVar[int]
    EPISODES_REAPED_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    ROWS_REPEATED_FIELD_NUMBER: _ClassVar[int]
    ROWS_REFUSED_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    REWARD_SUM_FIELD_NUMBER: _ClassVar[int]
    STEPS_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    STEPS_HANDED_OFF_FIELD_NUMBER: _ClassVar[int]
    STEPS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    STEPS_UNTRAINED_FIELD_NUMBER: _ClassVar[int]
    STEPS_WAITING_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    STALENESS_MEAN_FIELD_NUMBER: _ClassVar[int]
    RETURN_MEAN_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_WAITING_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_WAITED_FIELD_NUMBER: _ClassVar[int]
    LEARNER_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    STARTS_REFUSED_FIELD_NUMBER: _ClassVar[int]
    INFOS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_REFUSED_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_WITHHELD_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_GIVEN_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_OVERRIDDEN_FIELD_NUMBER: _ClassVar[int]
    STEPS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    SHADOW_ROWS_FAILED_FIELD_NUMBER: _ClassVar[int]
    STEPS_CUT_OFF_FIELD_NUMBER: _ClassVar[int]
    DAEMON_SILENT_S_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    uptime_s: float
    clients_connected: int
    episodes_open: int
    episodes_started: int
    episodes_finished: int
    episodes_reaped: int
    actions: int
    rows_repeated: int
    rows_refused: int
    batches: int
    reward_sum: float
    steps_completed: int
    steps_handed_off: int
    steps_dropped: int
    steps_untrained: int
    steps_waiting: int
    weights_seq_no: int
    staleness_mean: float
    return_mean: float
    training: TrainingIteration
    questions_waiting: int
    questions_waited: int
    learner_wait_s: float
    starts_refused: int
    infos_dropped: int
    clients_refused: int
    messages_withheld: int
    actions_given: int
    actions_overridden: int
    steps_paused: int
    policies: _containers.RepeatedCompositeFieldContainer[PolicyFigures]
    shadow_rows_failed: int
    steps_cut_off: int
    daemon_silent_s: float
    def __init__(self, boot_id: _Optional[str] = ..., uptime_s: _Optional[float] = ..., clients_connected: _Optional[int] = ..., episodes_open: _Optional[int] = ..., episodes_started: _Optional[int] = ..., episodes_finished: _Optional[int] = ..., episodes_reaped: _Optional[int] = ..., actions: _Optional[int] = ..., rows_repeated: _Optional[int] = ..., rows_refused: _Optional[int] = ..., batches: _Optional[int] = ..., reward_sum: _Optional[float] = ..., steps_completed: _Optional[int] = ..., steps_handed_off: _Optional[int] = ..., steps_dropped: _Optional[int] = ..., steps_untrained: _Optional[int] = ..., steps_waiting: _Optional[int] = ..., weights_seq_no: _Optional[int] = ..., staleness_mean: _Optional[float] = ..., return_mean: _Optional[float] = ..., training: _Optional[_Union[TrainingIteration, _Mapping]] = ..., questions_waiting: _Optional[int] = ..., questions_waited: _Optional[int] = ..., learner_wait_s: _Optional[float] = ..., starts_refused: _Optional[int] = ..., infos_dropped: _Optional[int] = ..., clients_refused: _Optional[int] = ..., messages_withheld: _Optional[int] = ..., actions_given: _Optional[int] = ..., actions_overridden: _Optional[int] = ..., steps_paused: _Optional[int] = ..., policies: _Optional[_Iterable[_Union[PolicyFigures, _Mapping]]] = ..., shadow_rows_failed: _Optional[int] = ..., steps_cut_off: _Optional[int] = ..., daemon_silent_s: _Optional[float] = ...) -> None: ...

class PolicyFigures(_message.Message):
    __slots__ = ("policy", "episodes_finished", "actions", "return_mean", "length_mean", "agreement", "rows_failed", "actions_unrecorded")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FINISHED_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    RETURN_MEAN_FIELD_NUMBER: _ClassVar[int]
    LENGTH_MEAN_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FAILED_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_UNRECORDED_FIELD_NUMBER: _ClassVar[int]
    policy: str
    episodes_finished: int
    actions: int
    return_mean: float
    length_mean: float
    agreement: float
    rows_failed: int
    actions_unrecorded: int
    def __init__(self, policy: _Optional[str] = ..., episodes_finished: _Optional[int] = ..., actions: _Optional[int] = ..., return_mean: _Optional[float] = ..., length_mean: _Optional[float] = ..., agreement: _Optional[float] = ..., rows_failed: _Optional[int] = ..., actions_unrecorded: _Optional[int] = ...) -> None: ...

class TrainingIteration(_message.Message):
    __slots__ = ("iteration", "weights_seq_no", "return_mean", "loss", "kl", "entropy", "steps", "steps_total", "seconds", "learn_seconds", "learner_updates", "checkpoint_path", "staleness_mean", "learning_rate", "steps_dropped", "steps_behind_0", "steps_behind_1", "steps_behind_2", "steps_behind_4", "steps_behind_8", "steps_behind_16", "effective_sample_share", "steps_undelivered")
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    RETURN_MEAN_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    KL_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    LEARN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LEARNER_UPDATES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_PATH_FIELD_NUMBER: _ClassVar[int]
    STALENESS_MEAN_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    STEPS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    STEPS_BEHIND_0_FIELD_NUMBER: _ClassVar[int]
    STEPS_BEHIND_1_FIELD_NUMBER: _ClassVar[int]
    STEPS_BEHIND_2_FIELD_NUMBER: _ClassVar[int]
    STEPS_BEHIND_4_FIELD_NUMBER: _ClassVar[int]
    STEPS_BEHIND_8_FIELD_NUMBER: _ClassVar[int]
    STEPS_BEHIND_16_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_SAMPLE_SHARE_FIELD_NUMBER: _ClassVar[int]
    STEPS_UNDELIVERED_FIELD_NUMBER: _ClassVar[int]
    iteration: int
    weights_seq_no: int
    return_mean: float
    loss: float
    kl: float
    entropy: float
    steps: int
    steps_total: int
    seconds: float
    learn_seconds: float
    learner_updates: int
    checkpoint_path: str
    staleness_mean: float
    learning_rate: float
    steps_dropped: int
    steps_behind_0: int
    steps_behind_1: int
    steps_behind_2: int
    steps_behind_4: int
    steps_behind_8: int
    steps_behind_16: int
    effective_sample_share: float
    steps_undelivered: int
    def __init__(self, iteration: _Optional[int] = ..., weights_seq_no: _Optional[int] = ..., return_mean: _Optional[float] = ..., loss: _Optional[float] = ..., kl: _Optional[float] = ..., entropy: _Optional[float] = ..., steps: _Optional[int] = ..., steps_total: _Optional[int] = ..., seconds: _Optional[float] = ..., learn_seconds: _Optional[float] = ..., learner_updates: _Optional[int] = ..., checkpoint_path: _Optional[str] = ..., staleness_mean: _Optional[float] = ..., learning_rate: _Optional[float] = ..., steps_dropped: _Optional[int] = ..., steps_behind_0: _Optional[int] = ..., steps_behind_1: _Optional[int] = ..., steps_behind_2: _Optional[int] = ..., steps_behind_4: _Optional[int] = ..., steps_behind_8: _Optional[int] = ..., steps_behind_16: _Optional[int] = ..., effective_sample_share: _Optional[float] = ..., steps_undelivered: _Optional[int] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("handshake", "batch")
    HANDSHAKE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    handshake: Handshake
    batch: StepBatch
    def __init__(self, handshake: _Optional[_Union[Handshake, _Mapping]] = ..., batch: _Optional[_Union[StepBatch, _Mapping]] = ...) -> None: ...

class StepResponse(_message.Message):
    __slots__ = ("handshake", "batch", "room", "endpoints")
    HANDSHAKE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    handshake: HandshakeReply
    batch: StepReply
    room: Room
    endpoints: Endpoints
    def __init__(self, handshake: _Optional[_Union[HandshakeReply, _Mapping]] = ..., batch: _Optional[_Union[StepReply, _Mapping]] = ..., room: _Optional[_Union[Room, _Mapping]] = ..., endpoints: _Optional[_Union[Endpoints, _Mapping]] = ...) -> None: ...

class Endpoints(_message.Message):
    __slots__ = ("addresses", "loads")
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    loads: _containers.RepeatedCompositeFieldContainer[EndpointLoad]
    def __init__(self, addresses: _Optional[_Iterable[str]] = ..., loads: _Optional[_Iterable[_Union[EndpointLoad, _Mapping]]] = ...) -> None: ...

class Room(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Handshake(_message.Message):
    __slots__ = ("protocol_version", "client_id", "observation_space", "action_space", "client_number", "records_in", "takes_endpoints")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_SPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_SPACE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_IN_FIELD_NUMBER: _ClassVar[int]
    TAKES_ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    client_id: str
    observation_space: _space_pb2.Space
    action_space: _space_pb2.Space
    client_number: int
    records_in: _containers.RepeatedScalarFieldContainer[str]
    takes_endpoints: bool
    def __init__(self, protocol_version: _Optional[int] = ..., client_id: _Optional[str] = ..., observation_space: _Optional[_Union[_space_pb2.Space, _Mapping]] = ..., action_space: _Optional[_Union[_space_pb2.Space, _Mapping]] = ..., client_number: _Optional[int] = ..., records_in: _Optional[_Iterable[str]] = ..., takes_endpoints: _Optional[bool] = ...) -> None: ...

class HandshakeReply(_message.Message):
    __slots__ = ("info", "client_number")
    INFO_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    info: GetServerInfoResponse
    client_number: int
    def __init__(self, info: _Optional[_Union[GetServerInfoResponse, _Mapping]] = ..., client_number: _Optional[int] = ...) -> None: ...

class StepBatch(_message.Message):
    __slots__ = ("message_id", "handles", "sequences", "flags", "rewards", "observations", "actions", "episode_ids", "infos", "policies")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    EPISODE_IDS_FIELD_NUMBER: _ClassVar[int]
    INFOS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    message_id: int
    handles: bytes
    sequences: bytes
    flags: bytes
    rewards: bytes
    observations: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    actions: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    episode_ids: _containers.RepeatedScalarFieldContainer[str]
    infos: _containers.RepeatedCompositeFieldContainer[RowInfo]
    policies: _containers.RepeatedCompositeFieldContainer[EpisodePolicy]
    def __init__(self, message_id: _Optional[int] = ..., handles: _Optional[bytes] = ..., sequences: _Optional[bytes] = ..., flags: _Optional[bytes] = ..., rewards: _Optional[bytes] = ..., observations: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., actions: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., episode_ids: _Optional[_Iterable[str]] = ..., infos: _Optional[_Iterable[_Union[RowInfo, _Mapping]]] = ..., policies: _Optional[_Iterable[_Union[EpisodePolicy, _Mapping]]] = ...) -> None: ...

class EpisodePolicy(_message.Message):
    __slots__ = ("name", "greedy")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GREEDY_FIELD_NUMBER: _ClassVar[int]
    name: str
    greedy: bool
    def __init__(self, name: _Optional[str] = ..., greedy: _Optional[bool] = ...) -> None: ...

class RowInfo(_message.Message):
    __slots__ = ("row", "json")
    ROW_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    row: int
    json: str
    def __init__(self, row: _Optional[int] = ..., json: _Optional[str] = ...) -> None: ...

class StepReply(_message.Message):
    __slots__ = ("message_id", "handles", "codes", "actions", "action_log_probs", "weights_seq_nos", "errors", "refusal", "stale")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    ACTION_LOG_PROBS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NOS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    message_id: int
    handles: bytes
    codes: bytes
    actions: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    action_log_probs: bytes
    weights_seq_nos: bytes
    errors: _containers.RepeatedCompositeFieldContainer[RowError]
    refusal: RowError
    stale: bool
    def __init__(self, message_id: _Optional[int] = ..., handles: _Optional[bytes] = ..., codes: _Optional[bytes] = ..., actions: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., action_log_probs: _Optional[bytes] = ..., weights_seq_nos: _Optional[bytes] = ..., errors: _Optional[_Iterable[_Union[RowError, _Mapping]]] = ..., refusal: _Optional[_Union[RowError, _Mapping]] = ..., stale: _Optional[bool] = ...) -> None: ...

class RowError(_message.Message):
    __slots__ = ("row", "code", "reason", "field", "message")
    ROW_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    row: int
    code: int
    reason: Reason
    field: str
    message: str
    def __init__(self, row: _Optional[int] = ..., code: _Optional[int] = ..., reason: _Optional[_Union[Reason, str]] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class StartEpisodeRequest(_message.Message):
    __slots__ = ("client_id", "episode_id", "training_disabled", "policy")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    TRAINING_DISABLED_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    episode_id: str
    training_disabled: bool
    policy: EpisodePolicy
    def __init__(self, client_id: _Optional[str] = ..., episode_id: _Optional[str] = ..., training_disabled: _Optional[bool] = ..., policy: _Optional[_Union[EpisodePolicy, _Mapping]] = ...) -> None: ...

class StartEpisodeResponse(_message.Message):
    __slots__ = ("episode_id",)
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    episode_id: str
    def __init__(self, episode_id: _Optional[str] = ...) -> None: ...

class GetActionRequest(_message.Message):
    __slots__ = ("client_id", "episode_id", "observation", "sequence", "no_wait")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NO_WAIT_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    episode_id: str
    observation: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    sequence: int
    no_wait: bool
    def __init__(self, client_id: _Optional[str] = ..., episode_id: _Optional[str] = ..., observation: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., sequence: _Optional[int] = ..., no_wait: _Optional[bool] = ...) -> None: ...

class GetActionResponse(_message.Message):
    __slots__ = ("action", "action_log_prob", "weights_seq_no", "stale")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ACTION_LOG_PROB_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    action: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    action_log_prob: float
    weights_seq_no: int
    stale: bool
    def __init__(self, action: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., action_log_prob: _Optional[float] = ..., weights_seq_no: _Optional[int] = ..., stale: _Optional[bool] = ...) -> None: ...

class LogActionRequest(_message.Message):
    __slots__ = ("client_id", "episode_id", "observation", "action", "sequence")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    episode_id: str
    observation: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    action: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    sequence: int
    def __init__(self, client_id: _Optional[str] = ..., episode_id: _Optional[str] = ..., observation: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., action: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., sequence: _Optional[int] = ...) -> None: ...

class LogActionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LogReturnsRequest(_message.Message):
    __slots__ = ("client_id", "episode_id", "reward", "info_json")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    INFO_JSON_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    episode_id: str
    reward: float
    info_json: str
    def __init__(self, client_id: _Optional[str] = ..., episode_id: _Optional[str] = ..., reward: _Optional[float] = ..., info_json: _Optional[str] = ...) -> None: ...

class LogReturnsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EndEpisodeRequest(_message.Message):
    __slots__ = ("client_id", "episode_id", "observation", "truncated", "sequence")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    episode_id: str
    observation: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    truncated: bool
    sequence: int
    def __init__(self, client_id: _Optional[str] = ..., episode_id: _Optional[str] = ..., observation: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., truncated: _Optional[bool] = ..., sequence: _Optional[int] = ...) -> None: ...

class EndEpisodeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
