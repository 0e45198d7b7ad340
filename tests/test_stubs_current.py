"""The stubs that are checked in are exactly those that the contract generates."""

from __future__ import annotations

from pathlib import Path

import grpc_tools
import pytest
from grpc_tools import protoc

PROTO = Path(__file__).parents[1] / "proto"
CONTRACT = PROTO / "policyserver" / "v1"


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    sources = [str(path.relative_to(PROTO)) for path in sorted(CONTRACT.glob("*.proto"))]
    includes = [f"-I{PROTO}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    assert protoc.main(["protoc", *includes, *outputs, *sources]) == 0
    return out / CONTRACT.relative_to(PROTO)


def test_every_stub_is_what_the_contract_generates(regenerated: Path) -> None:
    stale = [path.name for path in sorted(regenerated.iterdir()) if path.read_bytes() != (CONTRACT / path.name).read_bytes()]
    assert not stale, f"stale stubs {stale}: run `make protos` and commit the result"


def test_there_is_no_stub_without_a_contract(regenerated: Path) -> None:
    checked_in = {path.name for path in CONTRACT.glob("*_pb2*")}
    assert checked_in == {path.name for path in regenerated.iterdir()}
