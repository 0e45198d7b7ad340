from policyserver.v1 import space_pb2 as _space_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Activation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_UNSPECIFIED: _ClassVar[Activation]
    ACTIVATION_TANH: _ClassVar[Activation]
    ACTIVATION_RELU: _ClassVar[Activation]
    ACTIVATION_SILU: _ClassVar[Activation]

class Distribution(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISTRIBUTION_UNSPECIFIED: _ClassVar[Distribution]
    DISTRIBUTION_CATEGORICAL: _ClassVar[Distribution]
    DISTRIBUTION_MULTI_CATEGORICAL: _ClassVar[Distribution]
    DISTRIBUTION_GAUSSIAN: _ClassVar[Distribution]
    DISTRIBUTION_SQUASHED_GAUSSIAN: _ClassVar[Distribution]
    DISTRIBUTION_Q_VALUES: _ClassVar[Distribution]
ACTIVATION_UNSPECIFIED: Activation
ACTIVATION_TANH: Activation
ACTIVATION_RELU: Activation
ACTIVATION_SILU: Activation
DISTRIBUTION_UNSPECIFIED: Distribution
DISTRIBUTION_CATEGORICAL: Distribution
DISTRIBUTION_MULTI_CATEGORICAL: Distribution
DISTRIBUTION_GAUSSIAN: Distribution
DISTRIBUTION_SQUASHED_GAUSSIAN: Distribution
DISTRIBUTION_Q_VALUES: Distribution

class PolicyDescription(_message.Message):
    __slots__ = ("format_version", "origin", "observation_space", "action_space", "rewrites", "net", "distribution", "epsilon", "normalize_actions", "clip_actions")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_SPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_SPACE_FIELD_NUMBER: _ClassVar[int]
    REWRITES_FIELD_NUMBER: _ClassVar[int]
    NET_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    CLIP_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    origin: PolicyOrigin
    observation_space: _space_pb2.Space
    action_space: _space_pb2.Space
    rewrites: _containers.RepeatedCompositeFieldContainer[ObservationRewrite]
    net: Net
    distribution: Distribution
    epsilon: float
    normalize_actions: bool
    clip_actions: bool
    def __init__(self, format_version: _Optional[int] = ..., origin: _Optional[_Union[PolicyOrigin, _Mapping]] = ..., observation_space: _Optional[_Union[_space_pb2.Space, _Mapping]] = ..., action_space: _Optional[_Union[_space_pb2.Space, _Mapping]] = ..., rewrites: _Optional[_Iterable[_Union[ObservationRewrite, _Mapping]]] = ..., net: _Optional[_Union[Net, _Mapping]] = ..., distribution: _Optional[_Union[Distribution, str]] = ..., epsilon: _Optional[float] = ..., normalize_actions: _Optional[bool] = ..., clip_actions: _Optional[bool] = ...) -> None: ...

class PolicyOrigin(_message.Message):
    __slots__ = ("run", "algorithm", "checkpoint", "weights_seq_no")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SEQ_NO_FIELD_NUMBER: _ClassVar[int]
    run: str
    algorithm: str
    checkpoint: int
    weights_seq_no: int
    def __init__(self, run: _Optional[str] = ..., algorithm: _Optional[str] = ..., checkpoint: _Optional[int] = ..., weights_seq_no: _Optional[int] = ...) -> None: ...

class ObservationRewrite(_message.Message):
    __slots__ = ("flatten", "scale_images", "mean_std", "stack_frames")
    FLATTEN_FIELD_NUMBER: _ClassVar[int]
    SCALE_IMAGES_FIELD_NUMBER: _ClassVar[int]
    MEAN_STD_FIELD_NUMBER: _ClassVar[int]
    STACK_FRAMES_FIELD_NUMBER: _ClassVar[int]
    flatten: FlattenRewrite
    scale_images: ScaleImagesRewrite
    mean_std: MeanStdRewrite
    stack_frames: StackFramesRewrite
    def __init__(self, flatten: _Optional[_Union[FlattenRewrite, _Mapping]] = ..., scale_images: _Optional[_Union[ScaleImagesRewrite, _Mapping]] = ..., mean_std: _Optional[_Union[MeanStdRewrite, _Mapping]] = ..., stack_frames: _Optional[_Union[StackFramesRewrite, _Mapping]] = ...) -> None: ...

class FlattenRewrite(_message.Message):
    __slots__ = ("keys_to_remove",)
    KEYS_TO_REMOVE_FIELD_NUMBER: _ClassVar[int]
    keys_to_remove: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, keys_to_remove: _Optional[_Iterable[str]] = ...) -> None: ...

class ScaleImagesRewrite(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MeanStdRewrite(_message.Message):
    __slots__ = ("mean", "deviation", "demean", "destd", "clip")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    DEVIATION_FIELD_NUMBER: _ClassVar[int]
    DEMEAN_FIELD_NUMBER: _ClassVar[int]
    DESTD_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    mean: str
    deviation: str
    demean: bool
    destd: bool
    clip: float
    def __init__(self, mean: _Optional[str] = ..., deviation: _Optional[str] = ..., demean: _Optional[bool] = ..., destd: _Optional[bool] = ..., clip: _Optional[float] = ...) -> None: ...

class StackFramesRewrite(_message.Message):
    __slots__ = ("num_frames",)
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    num_frames: int
    def __init__(self, num_frames: _Optional[int] = ...) -> None: ...

class Net(_message.Message):
    __slots__ = ("encoder", "lstm", "head", "value_head", "log_stds", "log_std_bound")
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    LSTM_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    VALUE_HEAD_FIELD_NUMBER: _ClassVar[int]
    LOG_STDS_FIELD_NUMBER: _ClassVar[int]
    LOG_STD_BOUND_FIELD_NUMBER: _ClassVar[int]
    encoder: _containers.RepeatedCompositeFieldContainer[Layer]
    lstm: Lstm
    head: _containers.RepeatedCompositeFieldContainer[Layer]
    value_head: _containers.RepeatedCompositeFieldContainer[Layer]
    log_stds: str
    log_std_bound: float
    def __init__(self, encoder: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., lstm: _Optional[_Union[Lstm, _Mapping]] = ..., head: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., value_head: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., log_stds: _Optional[str] = ..., log_std_bound: _Optional[float] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("dense", "layer_norm", "convolution", "flatten_image")
    DENSE_FIELD_NUMBER: _ClassVar[int]
    LAYER_NORM_FIELD_NUMBER: _ClassVar[int]
    CONVOLUTION_FIELD_NUMBER: _ClassVar[int]
    FLATTEN_IMAGE_FIELD_NUMBER: _ClassVar[int]
    dense: DenseLayer
    layer_norm: LayerNormLayer
    convolution: ConvolutionLayer
    flatten_image: FlattenImageLayer
    def __init__(self, dense: _Optional[_Union[DenseLayer, _Mapping]] = ..., layer_norm: _Optional[_Union[LayerNormLayer, _Mapping]] = ..., convolution: _Optional[_Union[ConvolutionLayer, _Mapping]] = ..., flatten_image: _Optional[_Union[FlattenImageLayer, _Mapping]] = ...) -> None: ...

class DenseLayer(_message.Message):
    __slots__ = ("weight", "bias", "activation")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    weight: str
    bias: str
    activation: Activation
    def __init__(self, weight: _Optional[str] = ..., bias: _Optional[str] = ..., activation: _Optional[_Union[Activation, str]] = ...) -> None: ...

class LayerNormLayer(_message.Message):
    __slots__ = ("weight", "bias", "epsilon", "activation")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    weight: str
    bias: str
    epsilon: float
    activation: Activation
    def __init__(self, weight: _Optional[str] = ..., bias: _Optional[str] = ..., epsilon: _Optional[float] = ..., activation: _Optional[_Union[Activation, str]] = ...) -> None: ...

class ConvolutionLayer(_message.Message):
    __slots__ = ("weight", "bias", "stride", "padding", "activation")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    weight: str
    bias: str
    stride: _containers.RepeatedScalarFieldContainer[int]
    padding: _containers.RepeatedScalarFieldContainer[int]
    activation: Activation
    def __init__(self, weight: _Optional[str] = ..., bias: _Optional[str] = ..., stride: _Optional[_Iterable[int]] = ..., padding: _Optional[_Iterable[int]] = ..., activation: _Optional[_Union[Activation, str]] = ...) -> None: ...

class FlattenImageLayer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Lstm(_message.Message):
    __slots__ = ("input_weight", "output_weight", "bias")
    INPUT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    input_weight: str
    output_weight: str
    bias: str
    def __init__(self, input_weight: _Optional[str] = ..., output_weight: _Optional[str] = ..., bias: _Optional[str] = ...) -> None: ...
