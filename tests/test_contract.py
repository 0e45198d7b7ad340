"""The contract is its own documentation: what every message and field means stands beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc_tools
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from policyserver.client.messages import to_stats
from policyserver.common.figures import figures
from policyserver.common.server_stats import ServerStats, TrainingIteration
from policyserver.server.grpc_front.messages import encode_stats
from policyserver.v1 import policy_service_pb2 as pb

PROTO = Path(__file__).parents[1] / "proto"
STATISTICS = ((pb.GetStatsResponse, ServerStats), (pb.TrainingIteration, TrainingIteration))

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


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what stands beside each element of the contract, by its name; "" where nothing does."""
    sources = [str(path.relative_to(PROTO)) for path in sorted(PROTO.rglob("*.proto"))]
    includes = [f"-I{PROTO}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    out = tmp_path_factory.mktemp("contract") / "contract"
    assert protoc.main(["protoc", *includes, "--include_source_info", f"--descriptor_set_out={out}", *sources]) == 0
    comments: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(out.read_bytes()).file:
        beside = {tuple(at.path): at.leading_comments or at.trailing_comments for at in file.source_code_info.location}
        comments.update((name, " ".join(beside.get(path, "").split())) for path, name in elements(file))
    return comments


def test_every_message_and_field_of_the_contract_is_explained(contract: dict[str, str]) -> None:
    assert len(contract) > 150
    assert [name for name, comment in contract.items() if not comment] == []


@pytest.mark.parametrize(("message", "statistics"), STATISTICS)
def test_a_figure_on_the_wire_is_what_its_declaration_says(message: Any, statistics: type[Any], contract: dict[str, str]) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    assert {name for name in fields if fields[name].message_type is None} == set(figures(statistics))
    for name, figure in figures(statistics).items():
        value = getattr(message(), name)
        assert type(value) is figure.value_type, name
        assert fields[name].has_presence == bool(figure.unset), name
        parts = [figure.meaning]
        parts += [f"Unit: {figure.unit}."] if figure.unit and figure.value_type is float else []
        parts += [f"Unset {figure.unset}."] if figure.unset else []
        assert contract[f"{message.DESCRIPTOR.name}.{name}"] == " ".join(parts)


def distinct(statistics: type[Any], **others: Any) -> Any:
    """Return an instance of which no two figures are the same."""
    numbered = enumerate(figures(statistics).items(), start=1)
    return statistics(**{name: figure.value_type(number) for number, (name, figure) in numbered}, **others)


def test_a_client_is_told_every_figure() -> None:
    stats = distinct(ServerStats, training=distinct(TrainingIteration))
    assert to_stats(encode_stats(stats)) == stats
    assert to_stats(encode_stats(ServerStats(training=TrainingIteration()))) == ServerStats(training=TrainingIteration())
    assert to_stats(encode_stats(ServerStats())).training is None
