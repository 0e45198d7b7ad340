"""The reference of the protocol: services, messages, fields and enums with their comments, from the .proto files."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pb2 import MethodDescriptorProto as Method
from grpc_tools import protoc

ROOT = Path(__file__).parents[2] / "proto"
FOLDER = "policyserver/v1"

Path_ = tuple[int, ...]
"""Where something stands in a file, as descriptor.proto counts: a field's number, an index, and so on."""

_MESSAGE, _ENUM, _SERVICE, _INNER = 4, 5, 6, 2
"""Numbers of the fields `message_type`, `enum_type` and `service` of a file, and of what each of them holds."""


def markdown(name: str) -> str:
    """Return the reference of one .proto file, named without its folder."""
    file = _files()[f"{FOLDER}/{name}"]
    comments = _comments(file)
    lines: list[str] = []
    for i, service in enumerate(file.service):
        lines += [f"## Service `{service.name}`", "", comments.get((_SERVICE, i), ""), ""]
        for j, method in enumerate(service.method):
            lines += [_method(method), f": {comments.get((_SERVICE, i, _INNER, j), '')}", ""]
    for i, message in enumerate(file.message_type):
        lines += _message(message, comments, (_MESSAGE, i))
    for i, enum in enumerate(file.enum_type):
        lines += _enum(enum, comments, (_ENUM, i))
    return "\n".join(lines)


def value_comments(enum_name: str) -> dict[str, str]:
    """Return the comment of each value of an enum of the service."""
    file = _files()[f"{FOLDER}/policy_service.proto"]
    comments = _comments(file)
    (place,) = [i for i, enum in enumerate(file.enum_type) if enum.name == enum_name]
    return {value.name: comments.get((_ENUM, place, _INNER, j), "") for j, value in enumerate(file.enum_type[place].value)}


def _method(method: Method) -> str:
    takes = f"{'stream ' if method.client_streaming else ''}{_short(method.input_type)}"
    gives = f"{'stream ' if method.server_streaming else ''}{_short(method.output_type)}"
    return f"`{method.name}({takes}) -> {gives}`"


def _message(message: DescriptorProto, comments: dict[Path_, str], at: Path_) -> Iterator[str]:
    yield from (f"### `{message.name}`", "", comments.get(at, ""), "")
    for j, field in enumerate(message.field):
        yield f"`{field.name}` = {field.number}"
        yield f": {_type(message, field)}. {comments.get((*at, _INNER, j), '')}"
        yield ""


def _enum(enum: EnumDescriptorProto, comments: dict[Path_, str], at: Path_) -> Iterator[str]:
    yield from (f"### `{enum.name}`", "", comments.get(at, ""), "")
    for j, value in enumerate(enum.value):
        yield f"`{value.name}` = {value.number}"
        yield f": {comments.get((*at, _INNER, j), '')}"
        yield ""


def _type(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    name = _short(field.type_name) if field.type_name else FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated `{name}`"
    if field.proto3_optional:
        return f"optional `{name}`"
    return f"`{name}`, one of {message.oneof_decl[field.oneof_index].name}" if field.HasField("oneof_index") else f"`{name}`"


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _comments(file: FileDescriptorProto) -> dict[Path_, str]:
    """Return what is said above each declaration, as one line of Markdown."""
    places: Sequence[Any] = file.source_code_info.location
    return {tuple(place.path): " ".join(place.leading_comments.split()) for place in places if place.leading_comments}


@functools.cache
def _files() -> dict[str, FileDescriptorProto]:
    """Compile the .proto files with grpcio-tools, comments kept."""
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / FOLDER).glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        well_known = resources.files("grpc_tools") / "_proto"
        command = ["protoc", f"-I{ROOT}", f"-I{well_known}", f"--descriptor_set_out={out}", "--include_source_info", *protos]
        if protoc.main(command) != 0:
            raise RuntimeError(f"expected protoc to read {', '.join(protos)}; see its message above")
        return {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}
