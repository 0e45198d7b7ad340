"""The contract is its own documentation: what every message and field means stands beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTO = Path(__file__).parents[1] / "proto"

# Numbers of google.protobuf.FileDescriptorProto's and its parts' fields, of which the paths of source locations are made.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_PARTS = {_MESSAGES: ((2, "field"), (3, "nested_type"), (4, "enum_type")), _ENUMS: ((2, "value"),), _SERVICES: ((2, "method"),)}


def elements(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the path and name of every message, field, enum, value, service and method of a file."""

    def inside(path: tuple[int, ...], name: str, element: Any, kind: int) -> Iterator[tuple[tuple[int, ...], str]]:
        yield path, name
        for number, attribute in _PARTS[kind]:
            for index, part in enumerate(getattr(element, attribute)):
                here = (*path, number, index), f"{name}.{part.name}"
                if attribute == "nested_type":
                    yield from inside(*here, part, _MESSAGES)
                elif attribute == "enum_type":
                    yield from inside(*here, part, _ENUMS)
                else:
                    yield here

    for kind, attribute in ((_MESSAGES, "message_type"), (_ENUMS, "enum_type"), (_SERVICES, "service")):
        for index, element in enumerate(getattr(file, attribute)):
            yield from inside((kind, index), element.name, element, kind)


def test_every_message_and_field_of_the_contract_is_explained(tmp_path: Path) -> None:
    sources = [str(path.relative_to(PROTO)) for path in sorted(PROTO.rglob("*.proto"))]
    includes = [f"-I{PROTO}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    out = tmp_path / "contract"
    assert protoc.main(["protoc", *includes, "--include_source_info", f"--descriptor_set_out={out}", *sources]) == 0
    silent, seen = [], 0
    for file in FileDescriptorSet.FromString(out.read_bytes()).file:
        explained = {tuple(at.path) for at in file.source_code_info.location if at.leading_comments.strip() or at.trailing_comments.strip()}
        for path, name in elements(file):
            seen += 1
            if path not in explained:
                silent.append(f"{file.name}: {name}")
    assert seen > 150
    assert not silent
