from policyserver.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ActorMessage(_message.Message):
    __slots__ = ("hello", "beat", "answer")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    beat: Beat
    answer: Answer
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ...) -> None: ...

class DriverMessage(_message.Message):
    __slots__ = ("beat", "order", "question")
    BEAT_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    beat: Beat
    order: Order
    question: Question
    def __init__(self, beat: _Optional[_Union[Beat, _Mapping]] = ..., order: _Optional[_Union[Order, _Mapping]] = ..., question: _Optional[_Union[Question, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("index", "version", "host", "boot_id", "node_id")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    index: int
    version: str
    host: str
    boot_id: str
    node_id: str
    def __init__(self, index: _Optional[int] = ..., version: _Optional[str] = ..., host: _Optional[str] = ..., boot_id: _Optional[str] = ..., node_id: _Optional[str] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("addresses", "episodes_open")
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    EPISODES_OPEN_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    episodes_open: int
    def __init__(self, addresses: _Optional[_Iterable[str]] = ..., episodes_open: _Optional[int] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("kind", "content")
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    content: Value
    def __init__(self, kind: _Optional[str] = ..., content: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("number", "kind", "content")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    number: int
    kind: str
    content: Value
    def __init__(self, number: _Optional[int] = ..., kind: _Optional[str] = ..., content: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("number", "kind", "content")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    number: int
    kind: str
    content: Value
    def __init__(self, number: _Optional[int] = ..., kind: _Optional[str] = ..., content: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("none", "truth", "whole", "large", "number", "text", "data", "array", "list", "tuple", "map", "record")
    NONE_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    LARGE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    TUPLE_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    none: bool
    truth: bool
    whole: int
    large: str
    number: float
    text: str
    data: bytes
    array: Array
    list: Values
    tuple: Values
    map: Entries
    record: Record
    def __init__(self, none: _Optional[bool] = ..., truth: _Optional[bool] = ..., whole: _Optional[int] = ..., large: _Optional[str] = ..., number: _Optional[float] = ..., text: _Optional[str] = ..., data: _Optional[bytes] = ..., array: _Optional[_Union[Array, _Mapping]] = ..., list: _Optional[_Union[Values, _Mapping]] = ..., tuple: _Optional[_Union[Values, _Mapping]] = ..., map: _Optional[_Union[Entries, _Mapping]] = ..., record: _Optional[_Union[Record, _Mapping]] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("tensor", "dtype", "scalar")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SCALAR_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.Tensor
    dtype: str
    scalar: bool
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., dtype: _Optional[str] = ..., scalar: _Optional[bool] = ...) -> None: ...

class Values(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Entries(_message.Message):
    __slots__ = ("keys", "values")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[Value]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, keys: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("name", "fields")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    fields: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, name: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...
